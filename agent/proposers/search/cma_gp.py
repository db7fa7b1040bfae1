"""CMA-ES whose samples are screened by a Gaussian process before one of them is tried.

Pre-selection as in Ulmer, Streichert and Zell (2003), *Evolution strategies assisted by Gaussian processes*: of many
samples of the strategy the one with the largest expected improvement is evaluated, here weighted with the probability
that it does not fail. The strategy itself is told every result, so that where the process is wrong, CMA-ES remains.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from agent.proposers.search.base import Told
from agent.proposers.search.cma import CmaEs
from agent.proposers.search.failure_model import features, memory_trend
from agent.proposers.search.gp import Array, GaussianProcess, Kernel, compress, log_expected_improvement, one_thread
from agent.space.space import SearchSpace
from agent.types import Value

FIRST = 25  # successes before the screening begins
REFIT = 10  # successes, or trials for the failures, between two fits of the hyperparameters
LARGEST = 400  # points that a process takes in: the best ones and the latest
SAFE = 0.5  # probability of not failing that a candidate needs at least
STEP = 1.0  # log-odds that one needs more after each that failed: what improves most lies at the edge of what fails
SOFTNESS = 0.3  # of the border between success and failure, which are 1 and -1


class CmaGp(CmaEs):
    """``cma-gp``. A point that the process chose has the source ``gp``; before it knows enough it is ``cma``."""

    def __init__(self, space: SearchSpace, seed: int = 0, baseline: Mapping[str, Value] | None = None) -> None:
        super().__init__(space, seed, baseline)
        self._kernels: dict[str, tuple[int, Kernel]] = {}

    def choose(self, fresh: Sequence[Mapping[str, Value]]) -> tuple[int, str]:
        if len(self.successes) < FIRST or len(fresh) < 2:
            return super().choose(fresh)
        with one_thread():
            return int(np.argmax(self._score(fresh))), "gp"

    def _score(self, fresh: Sequence[Mapping[str, Value]]) -> Array:
        """The expected improvement of candidates, weighted with their chance; the larger the better."""
        points = [self.space.to_unit(params) for params in fresh]
        x = self._features(points)
        values, best = self._values()
        failures = self.failures()
        chance = pooled(self._survival(x), failures.chance(points))
        score = log_expected_improvement(best, *values.predict(x)) + np.log(chance)
        score[~failures.allowed(chance, SAFE, STEP)] = -np.inf
        return score

    def _values(self) -> tuple[GaussianProcess, float]:
        """What is known about values, and the best of the values as it knows them."""
        good = self.successes
        at = len(good) - (len(good) - FIRST) % REFIT
        kernel = self._kernel("values", at, lambda: self._process(_kept(good[:at])).kernel)
        known = _kept(good)
        process = self._process(known, kernel)
        best = float(np.min(process.predict(self._features([told.x for told in known]))[0]))
        if self.open:  # open points count as if they had come out as predicted, so that the next one goes elsewhere
            process = self._process(known, kernel, [self.space.to_unit(s.params) for s in self.open.values()])
        return process, best

    def _process(
        self, known: Sequence[Told], kernel: Kernel | None = None, waiting: Sequence[Array] = ()
    ) -> GaussianProcess:
        x = self._features([told.x for told in known])
        y = compress(np.array([told.value for told in known], dtype=float))
        runs = np.array([told.n for told in known], dtype=float)
        process = GaussianProcess(x, y, self._groups, runs, kernel)
        if not len(waiting):
            return process
        extra = self._features(waiting)
        believed = np.concatenate([y, process.predict(extra)[0]])
        ones = np.ones(len(extra))
        return GaussianProcess(np.vstack([x, extra]), believed, self._groups, np.concatenate([runs, ones]), kernel)

    def _survival(self, x: Array) -> Array:
        """The probability [m] that a run at the features ``x`` [m, f] does not fail, by a process of its own."""
        known = self.told[-LARGEST:]
        labels = np.array([-1.0 if told.value is None else 1.0 for told in known])
        if labels.min() == labels.max():
            return np.ones(len(x))
        from scipy.special import ndtr

        inputs = self._features([told.x for told in known])
        groups = self._groups
        if (weights := memory_trend(inputs, known)) is not None:
            inputs, x = (np.column_stack([z, z @ weights[1:] + weights[0]]) for z in (inputs, x))
            groups = np.append(groups, groups.max() + 1)
        at = len(known) - len(self.told) % REFIT if len(known) > REFIT else len(known)
        kernel = self._kernel(
            "survival",
            len(self.told) - len(self.told) % REFIT,
            lambda: GaussianProcess(inputs[:at], labels[:at], groups).kernel,
        )
        mean, deviation = GaussianProcess(inputs, labels, groups, kernel=kernel).predict(x)
        return np.asarray(ndtr(mean / np.sqrt(deviation**2 + SOFTNESS**2)))

    def _kernel(self, name: str, at: int, fit: Callable[[], Kernel]) -> Kernel:
        """The kernel that was fitted when ``at`` results were known: the same one after a resume."""
        if self._kernels.get(name, (-1,))[0] != at:
            self._kernels[name] = (at, fit())
        return self._kernels[name][1]

    @cached_property
    def _groups(self) -> NDArray[np.int64]:
        """The parameter [f] behind each feature: a number is one feature, a category one for each choice."""
        repeats = [len(p.choices) if p.kind == "categorical" else 1 for p in self.space.params]
        return np.repeat(np.arange(len(repeats)), repeats)

    def _features(self, points: Sequence[Array]) -> Array:
        return features(self.space, points)


def pooled(*estimates: Array) -> Array:
    """Probabilities [m] out of several estimates of them: the mean of their log-odds (Genest and Zidek 1986).

    The process knows how a border bends, and trusts too much in what it knows. A boundary of ``Failures`` is straight,
    and knows what it does not know.
    """
    odds = [np.log(p / (1.0 - p)) for p in (np.clip(estimate, 1e-3, 1.0 - 1e-6) for estimate in estimates)]
    return np.asarray(1.0 / (1.0 + np.exp(-np.mean(odds, axis=0))))


def _kept(told: Sequence[Told]) -> Sequence[Told]:
    """At most LARGEST successes: the best half of that number and the latest, in the order of telling."""
    if len(told) <= LARGEST:
        return told
    best = sorted(range(len(told)), key=lambda i: told[i].value or 0.0)[: LARGEST // 2]
    chosen = set(best)
    chosen.update([i for i in reversed(range(len(told))) if i not in chosen][: LARGEST - len(best)])
    return [told[i] for i in sorted(chosen)]
