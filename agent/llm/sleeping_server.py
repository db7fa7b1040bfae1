"""A model server that sleeps while trials run, and is checked: vLLM may answer nonsense after waking, or keep memory.

After each sleep its memory on the GPU is compared with the first sleep, after each wake its answer to a fixed question
with the answer from when it came up. If ``overnight llm serve`` runs the server, it is restarted; if that does not
help, it runs without sleep mode, or the session waits.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Unpack
from urllib.parse import urlsplit

from agent.errors import ModelMisconfigured, ModelUnavailable
from agent.llm import canary
from agent.llm.chat import Chat, Message, ModelInfo, Options, Reply
from agent.llm.control import RESTART, SPLIT, Control
from agent.llm.server_plan import KEPT_BACK, SPLIT_SHARE
from agent.llm.sleep_mode import Sleeper, healthy
from sandbox import gpu
from sandbox.types import Device

GROWTH = 0.02  # of the GPU's memory: a sleeping server that holds so much more than at its first sleep is restarted
GOOD_WAKES = 3  # in a row after a restart: then it has helped
RECHECK = 30.0  # seconds between checks of a server that the session waits for


class SleepingServer(Sleeper):
    """The model server at ``base_url``, which sleeps while trials run.

    Args:
        base_url: of its chat completions.
        cache: folder in which ``overnight llm serve`` keeps its files.
        device: on which trials train.
        may_split: whether it may run without sleep mode if a restart does not help.

    Attributes:
        chat: the model, set before the first request.
        report: receives each problem in one sentence, in the thread that finds it, and what followed: ``restarted``,
            ``split`` (it runs without sleep mode from now on), ``waiting`` or ``noted``.
        stop: whether the user wants the session to end now.
        most_gb: the most GPU memory that a trial has used, in units of 10**9 bytes.
        off: whether the server runs without sleep mode since a problem.
    """

    def __init__(self, base_url: str, cache: Path, device: Device, may_split: bool = True) -> None:
        super().__init__(base_url)
        self._device, self._may_split = device, may_split
        self._control = Control(cache, urlsplit(base_url).port or 80)
        self.chat: Chat | None = None
        self.report: Callable[[str, str], None] = lambda problem, action: None
        self.stop: Callable[[], bool] = lambda: False
        self.most_gb = 0.0
        self.off = False
        self._first_gb: float | None = None  # held at the first sleep
        self._answer: str | None = None  # to the canary, where the server was not started by ``overnight llm serve``
        self._recorded = self._checked = False  # the answer; the server since it last slept
        self._restarted, self._good = False, 0  # good: wakes without a problem since the restart
        self._said: set[str] = set()  # actions that are reported once

    def asleep(self) -> None:
        """Put the server to sleep, and restart it if it holds more memory than at its first sleep.

        Raises EnvironmentProblem if it stays awake, or does not come back after a restart.
        """
        while not self.off:
            self._checked = False
            super().asleep()
            if not (problem := self._growth()) or not self._restart(problem, "noted"):
                return

    def check_slept(self) -> None:
        if not self.off:
            super().check_slept()

    def awake(self) -> None:
        """Wake the server; after a sleep, restart it if it answers otherwise than when it came up.

        Raises ModelUnavailable if it stays asleep, is down, or answers otherwise and cannot be restarted.
        """
        if self.off:
            return
        if "waiting" in self._said:
            time.sleep(RECHECK)
        super().awake()
        if self._checked or self.chat is None or not healthy(self.root):
            return  # a server that is down is left to the retries of the next request
        while problem := self._difference(self.chat):
            if self._restart(problem, "waiting"):
                continue
            if self.off:
                return
            raise ModelUnavailable(
                f"{problem}. Restart the server; if it is another one on purpose, `overnight stop` and `overnight "
                f"resume` accept it."
            )
        self._checked, self._good = True, self._good + 1
        self._said.discard("waiting")

    def _growth(self) -> str:
        """Why the sleeping server holds too much memory; "" if it does not, or the memory is unknown."""
        served = self._control.served()
        whole, held = gpu.memory(self._device), gpu.held_gb(self._device, served.pid if served else None)
        if whole is None or held is None:
            return ""
        if self._first_gb is None:
            self._first_gb = held
        text = f"the model server holds {held:.1f} GB of the GPU asleep, and {self._first_gb:.1f} GB at its first sleep"
        return text if held > self._first_gb + GROWTH * whole.total_gb else ""

    def _difference(self, chat: Chat) -> str:
        """Why the answer to the canary is not the recorded one; "" if it is, or there is none."""
        try:
            served = self._control.served()
            if served is None and not self._recorded:
                self._answer, self._recorded = canary.record(chat), True
            expected = served.canary if served else self._answer
            if expected is None:
                self._note(f"the model server at {self.root} has no fixed answer to a question: it is not checked")
                return ""
            found = canary.ask(chat)
        except ModelMisconfigured:
            raise
        except ModelUnavailable as error:
            if not healthy(self.root):
                raise
            return f"the model server at {self.root} fails after waking, and /health does not show it ({error})"
        same = found == expected
        return "" if same else f"the model server at {self.root} answers a fixed question otherwise after waking"

    def _restart(self, text: str, otherwise: str) -> bool:
        """Restart the server with sleep mode, unless the last restart did not help or nothing can restart it.

        Returns whether it did. ``otherwise``: the action that is reported if the server goes on as it is.
        """
        managed = self._control.served() is not None
        if managed and (not self._restarted or self._good >= GOOD_WAKES):
            self.report(text, "restarted")
            self._control.restart(RESTART, self.stop)
            self._restarted, self._good = True, 0
            return True
        if managed and self._may_split and self._fits():
            self.report(text, "split")
            self.off = True
            self._control.restart(SPLIT, self.stop)
            return False
        self._note(text, otherwise)
        return False

    def _fits(self) -> bool:
        """Whether trials have room beside a server without sleep mode, as far as the memory is known."""
        whole = gpu.memory(self._device)
        room = None if whole is None else (1 - SPLIT_SHARE) * (1 - KEPT_BACK) * whole.total_gb * 2**30 / 1e9
        return room is None or self.most_gb <= room

    def _note(self, text: str, action: str = "noted") -> None:
        """Report a problem, unless one with this action was reported before."""
        if action not in self._said:
            self._said.add(action)
            self.report(text, action)


class WakingChat:
    """A chat model whose server is woken before each request."""

    def __init__(self, chat: Chat, server: SleepingServer) -> None:
        self.chat, self.server = chat, server
        server.chat = chat

    def complete(self, messages: Sequence[Message], **options: Unpack[Options]) -> Reply:
        self.server.awake()
        return self.chat.complete(messages, **options)

    def describe(self) -> ModelInfo:
        self.server.awake()  # the first call sends requests to the model
        return self.chat.describe()

    def count_tokens(self, messages: Sequence[Message]) -> int:
        return self.chat.count_tokens(messages)
