"""Repeats a request while its failures are transient, with exponential backoff and jitter."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from agent.llm.connection import RequestFailed

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0  # seconds between attempts; the pause doubles from one to the next

T = TypeVar("T")


@dataclass(frozen=True)
class Retries:
    """When to repeat a request. ``sleep``, ``clock`` and ``rng`` are for tests."""

    max_attempts: int = 12
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic
    rng: random.Random = field(default_factory=random.Random)

    def call(self, request: Callable[[], T], patience: float, failures: list[str]) -> T:
        """The result of ``request``. Each transient failure adds a line to ``failures``.

        Raises RequestFailed if another attempt cannot succeed, or ``patience`` seconds or ``max_attempts`` are used up.
        """
        began = self.clock()
        while True:
            try:
                return request()
            except RequestFailed as error:
                if not error.transient:
                    raise
                failures.append(str(error))
                pause = self._pause(len(failures), error.retry_after)
                if len(failures) >= self.max_attempts or self.clock() - began + pause > patience:
                    raise
            self.sleep(pause)

    def _pause(self, failed: int, retry_after: float | None) -> float:
        """Seconds before the next attempt: Retry-After plus up to 10 %, else 1, 2, 4 ... 60, less up to a half."""
        if retry_after is not None:
            return retry_after + self.rng.uniform(0, 0.1 * retry_after + 0.1)
        return float(min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** (failed - 1)) * self.rng.uniform(0.5, 1.0))
