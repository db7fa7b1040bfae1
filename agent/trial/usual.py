"""Start-up and loading times of the baseline. They bound those of edited programs."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from agent.types import Measurement

FACTOR = 3.0  # an edit may need this multiple of the baseline's own time...
STARTUP_MORE, PROCESSOR_MORE = 20.0, 10.0  # ...or so many more seconds: a busy machine, a small baseline
LOADING_MORE = {"cpu": 3.0, "cuda": 10.0, "rocm": 10.0, "mps": 10.0}
PROCESSOR, LOADING = "startup_processor_seconds", "loading_seconds"  # metrics of a run


@dataclass(frozen=True)
class Usual:
    """The longest of the baseline's runs, in seconds; 0: unknown, so there is no bound."""

    startup: float = 0.0
    processor: float = 0.0  # processor time of the start-up
    loading: float = 0.0  # of a model process

    @property
    def most_startup(self) -> float:
        return _bound(self.startup, STARTUP_MORE)

    @property
    def most_processor(self) -> float:
        return _bound(self.processor, PROCESSOR_MORE)

    def most_loading(self, kind: str) -> float:
        """``kind``: of the device."""
        return _bound(self.loading, LOADING_MORE[kind])


UNKNOWN = Usual()


def usual_of(runs: Iterable[Measurement]) -> Usual:
    """What the calibration runs needed."""
    good = [run for run in runs if run.role == "calibrate" and run.status == "ok"]

    def longest(times: Iterable[float]) -> float:
        return max(times, default=0.0)

    return Usual(
        longest(run.seconds.get("startup", 0.0) for run in good),
        longest(run.metrics.get(PROCESSOR, 0.0) for run in good),
        longest(run.metrics.get(LOADING, 0.0) for run in good),
    )


def _bound(own: float, more: float) -> float:
    return max(FACTOR * own, own + more) if own else math.inf
