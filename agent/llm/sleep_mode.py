"""vLLM's sleep mode over HTTP. A sleeping server keeps its weights in host memory and frees the GPU.

The endpoints /is_sleeping, /sleep and /wake_up are beside /v1. vLLM has them with ``--enable-sleep-mode`` and
``VLLM_SERVER_DEV_MODE=1``, which ``overnight llm serve`` sets. The state is asked each time and never cached, because
the server may have restarted.
"""

from __future__ import annotations

import http.client
import json
import time
from urllib.parse import urlsplit

from agent.errors import EnvironmentProblem, ModelUnavailable

CALL_SECONDS = 120.0  # timeout of one call: the weights of a large model move through the PCI bus
PATIENCE = 60.0  # seconds of retries for falling asleep or waking up
PAUSE = 0.5  # seconds between retries


def call(root: str, method: str, path: str, timeout: float) -> tuple[int, bytes]:
    """Status and body of a request without proxy, redirects and key. Raises OSError without an answer."""
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


def healthy(root: str) -> bool:
    """Whether the server at ``root`` answers /health."""
    try:
        return call(root, "GET", "/health", 10.0)[0] == 200
    except OSError:
        return False


class Sleeper:
    """Sleep mode of the model server at ``base_url``, the base URL of its chat completions."""

    def __init__(self, base_url: str) -> None:
        self.root = base_url.removesuffix("/v1")

    def sleeping(self, timeout: float = CALL_SECONDS) -> bool | None:
        """Whether the server sleeps; None for a server without sleep mode. Raises OSError without a known answer."""
        status, body = call(self.root, "GET", "/is_sleeping", timeout)
        if status in (404, 405):
            return None
        try:
            return bool(json.loads(body)["is_sleeping"])
        except (ValueError, KeyError, TypeError):
            raise OSError(f"/is_sleeping says {status}: {body[:100]!r}") from None

    def asleep(self) -> None:
        """Put the server to sleep and wait for it. Raises EnvironmentProblem if it stays awake.

        A server that is down counts as asleep: it holds no GPU.
        """
        if problem := self._bring(True, "/sleep?level=1"):
            raise EnvironmentProblem(
                f"the model server at {self.root} does not go to sleep ({problem}); a trial beside an awake server "
                f"trains more slowly. Look at its log; start it with `overnight llm serve`, or use --llm-sleep off."
            )

    def awake(self) -> None:
        """Wake the server and wait for it. Raises ModelUnavailable if it stays asleep.

        A server that is down is left to the retries of the next request.
        """
        if problem := self._bring(False, "/wake_up"):
            raise ModelUnavailable(
                f"the model server at {self.root} does not wake up ({problem}). Look at its log, or restart it."
            )

    def check_slept(self) -> None:
        """After a run: EnvironmentProblem if the server was woken or restarted, so that the run shared its GPU."""
        try:
            state = self.sleeping()
        except OSError:
            return  # down, or too busy to answer: no sign that the run shared its GPU
        if not state:
            raise EnvironmentProblem(
                f"the model server at {self.root} woke up during a trial, so the run does not count. Keep other "
                f"clients away from the server, or use --llm-sleep off."
            )

    def _bring(self, wanted: bool, path: str) -> str:
        """Repeat the request until the server sleeps as ``wanted``; the last problem if PATIENCE ends before."""
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
            time.sleep(pause)  # the first check follows at once: the change is usually done when the call returns
            pause = PAUSE
