"""vLLM's sleep mode, over HTTP: a server that sleeps keeps its weights in the host's memory, and frees the GPU.

The endpoints are /is_sleeping, /sleep and /wake_up, beside /v1; vLLM has them where it was started with
``--enable-sleep-mode`` and ``VLLM_SERVER_DEV_MODE=1``, as ``overnight llm serve`` does. Nothing is remembered here: the
server is asked each time whether it sleeps, for it may have been restarted in between.
"""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from agent.errors import EnvironmentProblem, ModelUnavailable
from agent.llm.chat import Chat, Message, ModelInfo, Reply

CALL_SECONDS = 120.0  # one call: the weights of a large model move through the PCI bus
PATIENCE = 60.0  # seconds that a server which stumbles has for falling asleep, or for waking up
PAUSE = 0.5


def call(root: str, method: str, path: str, timeout: float) -> tuple[int, bytes]:
    """Ask a server of this machine: no proxy, no redirect, no key. Returns the status and the body.

    Raises:
        OSError: nobody answers, ConnectionRefusedError if nobody listens.
    """
    parts = urlsplit(root)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=timeout)
    try:
        connection.request(method, parts.path.rstrip("/") + path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    except http.client.HTTPException as error:
        raise OSError(f"no HTTP answer ({error})") from error
    finally:
        connection.close()


class Sleeper:
    """A model server that can be put to sleep. ``base_url`` is the one of its chat completions."""

    def __init__(self, base_url: str) -> None:
        self.root = base_url.removesuffix("/v1")

    def sleeping(self, timeout: float = CALL_SECONDS) -> bool | None:
        """Whether it sleeps; None for a server that has no such endpoint.

        Raises:
            OSError: it gives no answer, or one that nobody understands.
        """
        status, body = call(self.root, "GET", "/is_sleeping", timeout)
        if status in (404, 405):
            return None
        try:
            return bool(json.loads(body)["is_sleeping"])
        except (ValueError, KeyError, TypeError):
            raise OSError(f"/is_sleeping says {status}: {body[:100]!r}") from None

    def asleep(self) -> None:
        """Put it to sleep, and return when it sleeps. A server that is gone holds no GPU: that is as good.

        Raises:
            EnvironmentProblem: it stays awake.
        """
        problem = self._bring(True, "/sleep?level=1")
        if problem:
            raise EnvironmentProblem(
                f"the model server at {self.root} does not go to sleep ({problem}), and a trial beside it would be "
                f"measured wrong. Look at its log; start it with `overnight llm serve`, or use --llm-sleep off."
            )

    def awake(self) -> None:
        """Wake it, and return when it is awake. A server that is gone is left to those who wait for its answers.

        Raises:
            ModelUnavailable: it sleeps on.
        """
        problem = self._bring(False, "/wake_up")
        if problem:
            raise ModelUnavailable(
                f"the model server at {self.root} does not wake up ({problem}). Look at its log, or restart it."
            )

    def check_slept(self) -> None:
        """What to ask when a run is over.

        Raises:
            EnvironmentProblem: the server woke up in the meantime, or was started again: the run was not alone.
        """
        try:
            state = self.sleeping()
        except OSError:
            return  # gone, or too busy to say: nothing that a run could have noticed for sure
        if not state:
            raise EnvironmentProblem(
                f"the model server at {self.root} woke up while a trial ran, so the run does not count. Let no one "
                f"else use that server during the night, or use --llm-sleep off."
            )

    def _bring(self, wanted: bool, path: str) -> str:
        """Ask until it is so; what stands in the way, in words, when patience is at its end."""
        deadline, pause = time.monotonic() + PATIENCE, 0.0
        while True:
            try:
                state = self.sleeping()
                if state is None:
                    return "it has no sleep mode" if wanted else ""
                if state is wanted:
                    return ""
                status, body = call(self.root, "POST", path, CALL_SECONDS)
                problem = f"{path} says {status}: {body[:100]!r}" if status != 200 else f"{path} changes nothing"
            except ConnectionRefusedError:
                return ""
            except OSError as error:
                problem = str(error) or type(error).__name__
            if time.monotonic() > deadline:
                return problem
            time.sleep(pause)  # as a rule it is done when it answers
            pause = PAUSE


class WakingChat:
    """A model that is woken before it is asked."""

    def __init__(self, chat: Chat, sleeper: Sleeper) -> None:
        self.chat, self.sleeper = chat, sleeper

    def complete(self, messages: Sequence[Message], **options: Any) -> Reply:
        self.sleeper.awake()
        return self.chat.complete(messages, **options)

    def describe(self) -> ModelInfo:
        self.sleeper.awake()  # the first description asks the model something
        return self.chat.describe()

    def count_tokens(self, messages: Sequence[Message]) -> int:
        return self.chat.count_tokens(messages)
