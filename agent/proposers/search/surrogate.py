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

Posterior = tuple[GaussianProcess, float, Unit]  # the process, and as ``best`` and ``top`` of ``Outlook``


@dataclass(frozen=True)
class Outlook:
    """What the process expects of points [m]; values are minimised."""

    mean: Array  # [m]
    deviation: Array  # [m], of the value without noise
    best: float  # smallest predicted value of a success
    top: Unit  # [dimensions], the success with that value
    noise: float  # standard deviation of one run
    scales: Array  # length scales [dimensions], in sides of the cube

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
        self._now: tuple[tuple[int, int], Posterior] | None = None  # results and asks, and what follows from them

    def outlook(self, points: Sequence[Unit]) -> Outlook:
        """What to expect of ``points`` [m, dimensions], after at least two successes."""
        at = (len(self._method.observations), self._method.asks)
        with one_thread():
            if self._now is None or self._now[0] != at:
                self._now = at, self._posterior()
            process, best, top = self._now[1]
            mean, deviation = process.predict(features(self._method.space, points))
        return Outlook(mean, deviation, best, top, process.noise, process.kernel.scales)

    def influential(self) -> list[str]:
        """The parameters in the order of their influence on the result, the strongest first."""
        good = successes(self._method.observations)
        if len(good) < FIRST:
            return []
        with one_thread():
            scales = self._kernel(good).scales
        return [self._method.space.names[i] for i in np.argsort(scales, kind="stable")]

    def _posterior(self) -> Posterior:
        """The process over all successes and open asks, and the success with the smallest predicted value."""
        good, waiting = successes(self._method.observations), self._method.open.values()
        known = best_and_latest(good, LARGEST)
        process = self._process(known, self._kernel(good))
        predicted = process.predict(process.x)[0]
        top = int(np.argmin(predicted))
        if waiting:  # an open ask counts as evaluated with its predicted value: the next ask moves away from it
            points = [self._method.space.to_unit(suggestion.params) for suggestion in waiting]
            process = self._process(known, process.kernel, points)
        return process, float(predicted[top]), known[top].x

    def _kernel(self, good: Sequence[Observation]) -> Kernel:
        """Fitted at every REFIT-th success: a resume fits to the same observations."""
        at = max(2, len(good) - (len(good) - FIRST) % REFIT)
        if self._fitted is None or self._fitted[0] != at:
            self._fitted = at, self._process(best_and_latest(good[:at], LARGEST)).kernel
        return self._fitted[1]

    def _process(
        self, known: Sequence[Observation], kernel: Kernel | None = None, waiting: Sequence[Unit] = ()
    ) -> GaussianProcess:
        x = features(self._method.space, [o.x for o in known])
        y = compress(np.array([o.value for o in known], dtype=float))
        runs = np.array([o.n for o in known], dtype=float)
        process = GaussianProcess(x, y, self._groups, runs, kernel)
        if not len(waiting):
            return process
        extra = features(self._method.space, waiting)
        believed = np.concatenate([y, process.predict(extra)[0]])
        runs = np.concatenate([runs, np.ones(len(extra))])
        return GaussianProcess(np.vstack([x, extra]), believed, self._groups, runs, kernel)
