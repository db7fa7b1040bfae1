"""Bounds for the start-up and loading of edited programs, from the baseline's own times."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from agent.types import Measurement

FACTOR = 3.0  # an edit may need this multiple of the baseline's own time...
STARTUP_MORE, PROCESSOR_MORE = 20.0, 10.0  # ...or so many more seconds: a busy machine, a small baseline
LOADING_MORE = {"cpu": 6.0, "gpu": 10.0}  # a model that loads in 0.1 s needs seconds beside other work
PROCESSOR, LOADING = "startup_processor_seconds", "loading_seconds"  # metrics of a run


@dataclass(frozen=True)
class Usual:
    """Bounds in seconds."""

    startup: float = math.inf
    processor: float = math.inf  # processor time of the start-up
    loading: float = math.inf  # of a model process


UNKNOWN = Usual()


def usual_of(runs: Iterable[Measurement]) -> Usual:
    """The bounds that follow from the longest of the calibration runs; infinite where no run has the time."""
    good = [run for run in runs if run.role == "calibrate" and run.status == "ok"]

    def bound(times: Iterable[float], more: float) -> float:
        own = max(times, default=0.0)
        return max(FACTOR * own, own + more) if own else math.inf

    return Usual(
        bound((run.seconds.get("startup", 0.0) for run in good), STARTUP_MORE),
        bound((run.metrics.get(PROCESSOR, 0.0) for run in good), PROCESSOR_MORE),
        bound(
            (run.metrics.get(LOADING, 0.0) for run in good),
            LOADING_MORE["cpu" if all(run.device == "cpu" for run in good) else "gpu"],
        ),
    )
