"""The Gaussian process over the results of a search: what its next points are expected to bring."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from agent.proposers.search.base import Method, Observation, best_and_latest, successes
from agent.proposers.search.failure_model import features
from agent.proposers.search.gp import Array, GaussianProcess, Kernel, compress, log_expected_improvement, one_thread
from agent.space.space import Unit

FIRST = 15  # successes before the process screens points
JUDGED = 8  # successes before it compares points of a model
REFIT = 10  # successes between two fits of the length scales
LARGEST = 400  # observations in the process


@dataclass(frozen=True)
class Outlook:
    """What the process expects of points [m]; values are minimised."""

    process: GaussianProcess
    best: float  # smallest predicted value of a success
    top: Unit  # [dimensions], the success with that value
    mean: Array  # [m]
    deviation: Array  # [m], of the value without noise

    def log_improvement(self, bonus: Array | float = 0.0) -> Array:
        """log of the expected improvement [m], with means lower by ``bonus`` [m] deviations."""
        return log_expected_improvement(self.best, self.mean - bonus * self.deviation, self.deviation)


class Surrogate:
    """The process over the successes of ``method`` and its open asks."""

    def __init__(self, method: Method) -> None:
        self._method = method
        params = method.space.params
        repeats = [len(p.choices) if p.kind == "categorical" else 1 for p in params]
        self._groups = np.repeat(np.arange(len(repeats)), repeats)  # the parameter [f] behind each feature
        self._fitted: tuple[int, Kernel] | None = None  # successes at the last fit, and its result
        self._now: tuple[tuple[int, int], tuple[GaussianProcess, float, Unit]] | None = None  # results and asks

    def outlook(self, points: Sequence[Unit]) -> Outlook:
        """What to expect of ``points`` [m, dimensions], after at least two successes."""
        at = (len(self._method.observations), self._method.asks)
        with one_thread():
            if self._now is None or self._now[0] != at:
                self._now = at, self._posterior()
            process, best, top = self._now[1]
            return Outlook(process, best, top, *process.predict(features(self._method.space, points)))

    def influential(self) -> list[str]:
        """The parameters in the order of their influence on the result, the strongest first."""
        good = successes(self._method.observations)
        if len(good) < FIRST:
            return []
        with one_thread():
            scales = self._kernel(good).scales
        return [self._method.space.names[i] for i in np.argsort(scales, kind="stable")]

    def _posterior(self) -> tuple[GaussianProcess, float, Unit]:
        """The process over all successes and open asks, and ``best`` and ``top`` of ``Outlook``."""
        good, space = successes(self._method.observations), self._method.space
        known = best_and_latest(good, LARGEST)
        process = self._process(known, self._kernel(good))
        predicted = process.predict(process.x)[0]
        top = int(np.argmin(predicted))
        if waiting := [space.to_unit(suggestion.params) for suggestion in self._method.open.values()]:
            process = process.believing(features(space, waiting))  # the next ask moves away from the open ones
        return process, float(predicted[top]), known[top].x

    def _kernel(self, good: Sequence[Observation]) -> Kernel:
        """Fitted at every REFIT-th success: a resume fits to the same observations."""
        at = max(2, len(good) - (len(good) - FIRST) % REFIT)
        if self._fitted is None or self._fitted[0] != at:
            self._fitted = at, self._process(best_and_latest(good[:at], LARGEST)).kernel
        return self._fitted[1]

    def _process(self, known: Sequence[Observation], kernel: Kernel | None = None) -> GaussianProcess:
        x = features(self._method.space, [o.x for o in known])
        y = compress(np.array([o.value for o in known], dtype=float))
        return GaussianProcess(x, y, self._groups, np.array([o.n for o in known], dtype=float), kernel)
