"""CMA-ES whose samples are screened by a Gaussian process.

Pre-selection: of the admissible samples of an ask, the one with the largest expected improvement is evaluated. CMA-ES
still learns from every result, so an inaccurate process costs little.

Sources:
    Ulmer, Streichert and Zell (2003), Evolution strategies assisted by Gaussian processes with improved pre-selection
    criterion, CEC 2003. Expected improvement: Jones, Schonlau and Welch (1998), eq. 15.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from agent.proposers.search.base import Observation, best_and_latest
from agent.proposers.search.cma import CmaEs
from agent.proposers.search.failure_model import features
from agent.proposers.search.gp import Array, GaussianProcess, Kernel, compress, log_expected_improvement, one_thread
from agent.space.space import Params, SearchSpace

FIRST = 25  # successes before the screening starts
REFIT = 10  # successes between two fits of the length scales
LARGEST = 400  # observations in the process


class CmaGp(CmaEs):
    """The source of a suggestion is ``gp`` if the process chose it, ``cma`` before the 25th success."""

    def __init__(self, space: SearchSpace, seed: int = 0, baseline: Params | None = None) -> None:
        super().__init__(space, seed, baseline)
        repeats = [len(p.choices) if p.kind == "categorical" else 1 for p in space.params]
        self._groups = np.repeat(np.arange(len(repeats)), repeats)  # the parameter [f] behind each feature
        self._fitted: tuple[int, Kernel] | None = None  # successes at the last fit, and its result

    def choose(self, fresh: Sequence[Params]) -> tuple[int, str]:
        if len(self.successes) < FIRST or len(fresh) < 2:
            return super().choose(fresh)
        points = [self.space.to_unit(params) for params in fresh]
        with one_thread():
            process, best = self._posterior()
            score = log_expected_improvement(best, *process.predict(features(self.space, points)))
            score[~self.admissible(points)] = -np.inf
            return int(np.argmax(score)), "gp"

    def _posterior(self) -> tuple[GaussianProcess, float]:
        """The process over all successes and open asks, and the smallest predicted value of a success."""
        good = self.successes
        known = best_and_latest(good, LARGEST)
        process = self._process(known, self._kernel(good))
        best = float(np.min(process.predict(process.x)[0]))
        if self.open:  # an open ask counts as evaluated with its predicted value: the next ask moves away from it
            process = self._process(known, process.kernel, [self.space.to_unit(s.params) for s in self.open.values()])
        return process, best

    def _kernel(self, good: Sequence[Observation]) -> Kernel:
        """Fitted at every REFIT-th success: a resume fits to the same observations."""
        at = len(good) - (len(good) - FIRST) % REFIT
        if self._fitted is None or self._fitted[0] != at:
            self._fitted = at, self._process(best_and_latest(good[:at], LARGEST)).kernel
        return self._fitted[1]

    def _process(
        self, known: Sequence[Observation], kernel: Kernel | None = None, waiting: Sequence[Array] = ()
    ) -> GaussianProcess:
        x = features(self.space, [o.x for o in known])
        y = compress(np.array([o.value for o in known], dtype=float))
        runs = np.array([o.n for o in known], dtype=float)
        process = GaussianProcess(x, y, self._groups, runs, kernel)
        if not len(waiting):
            return process
        extra = features(self.space, waiting)
        believed = np.concatenate([y, process.predict(extra)[0]])
        runs = np.concatenate([runs, np.ones(len(extra))])
        return GaussianProcess(np.vstack([x, extra]), believed, self._groups, runs, kernel)
