"""Which points will fail, by what failed before: a boundary for each kind of failure, and how sure one must be of it.

A kind of failure (out of memory, diverged, …) has a logistic boundary over the features of a point, fitted to the
maximum of its posterior; how little is known of it widens the prediction (Laplace's approximation: MacKay 1992,
*The evidence framework applied to classification networks*). Memory that runs reported says more of running out of it
than failures do, so its linear trend is a feature too.

Whether a kind has a boundary at all is for the data to say: the evidence for one stands against that for failures
that strike at random, which no choice of points avoids. Those neither repel the search nor make it careful.

How sure one must be of a point follows from how often points of the same source failed of late: each failure raises
the bar, each success lowers it a little, so that the share of failures settles near ``SHARE`` whatever the boundary's
errors are (online calibration as in Gibbs and Candès 2021, arXiv 2106.00170).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from agent.proposers.search.base import Told
from agent.space.space import SearchSpace, Unit

Array = NDArray[np.float64]

OWN = ("cma", "gp")  # sources of the search's own points
SHARE = 0.03  # of the points of a source that may fail in the long run
SAFEST = 1 / 32  # of the points may always be tried
LARGEST = 400  # results that a boundary is fitted to: the latest
STEEP = 8.0  # prior standard deviation of a boundary's slope, log-odds from one end of the cube to the other
LEVEL = 5.0  # the same for its level at home
ENOUGH = 25  # reports of memory before its trend is a feature
STEPS = 25  # of Newton's method at most
KINDS = 8  # of failure at most: the rare ones count as one


def features(space: SearchSpace, points: Sequence[Array]) -> Array:
    """[n, f] of points of the cube: numbers as they are, categories one-hot, different choices 1 apart."""
    x = np.asarray(points, dtype=float)
    columns: list[Array] = []
    for i, param in enumerate(space.params):
        if param.kind == "categorical":
            count = len(param.choices)
            index = np.minimum((x[:, i] * count).astype(np.int64), count - 1)
            columns.append(np.eye(count)[index] / np.sqrt(2.0))
        else:
            columns.append(x[:, i : i + 1])
    return np.concatenate(columns, axis=1)


def memory_trend(x: Array, told: Sequence[Told]) -> Array | None:
    """Weights [1 + f] of a linear model of log memory over ``x`` [n, f]; None while little is known."""
    known = [i for i, t in enumerate(told) if t.memory_gb is not None and t.status != "oom"]
    if len(known) < ENOUGH:
        return None
    y = np.log([told[i].memory_gb or 1.0 for i in known])
    centre = x[known].mean(axis=0)
    z = x[known] - centre
    slope = np.linalg.solve(z.T @ z + 0.05 * np.eye(x.shape[1]), z.T @ (y - y.mean()))
    return np.concatenate([[-float(slope @ centre)], slope])


class Failures:
    """What is known of failing: a boundary for each kind, and how far a kind depends on the point at all."""

    def __init__(self, space: SearchSpace, told: Sequence[Told], home: Unit) -> None:
        self._space, self._all, self._told = space, told, told[-LARGEST:]
        self._middle = features(space, [home])[0]
        self._kinds = kinds(self._told)
        self._x = features(space, [t.x for t in self._told]) - self._middle if self._kinds else np.zeros((0, 0))
        self._trend = memory_trend(self._x, self._told) if self._kinds else None
        self._boundaries = {kind: self._fit(kind) for kind in sorted(set(self._kinds.values()))}

    def _fit(self, kind: str) -> tuple[Boundary, float]:
        """The boundary of a kind, and the probability that it is one and the kind does not strike at random."""
        rows = [i for i, t in enumerate(self._told) if t.value is not None or self._kinds[t.status] == kind]
        failed = np.array([self._told[i].value is None for i in rows], dtype=float)
        found, blind = Boundary(self._columns(kind, self._x[rows]), failed), Boundary(np.zeros((len(rows), 0)), failed)
        return found, float(_logistic(np.array([found.evidence - blind.evidence]))[0])

    def _columns(self, kind: str, x: Array) -> Array:
        """The features that a kind may depend on; running out of memory also on the trend of the memory."""
        if kind != "oom" or self._trend is None:
            return x
        return np.column_stack([x, 2.0 * x @ self._trend[1:]])

    def chance(self, points: Sequence[Unit]) -> Array:
        """The probability [m] that a run at ``points`` of the cube does not fail for being where it is."""
        chance = np.ones(len(points))
        new = features(self._space, points) - self._middle if self._boundaries else np.zeros((len(points), 0))
        for kind, (boundary, real) in self._boundaries.items():
            chance *= 1.0 - real * boundary.predict(self._columns(kind, new))
        return chance

    def blame(self, told: Told) -> float:
        """The probability that a failure came of where the point is; 0 for a success."""
        if told.value is not None:
            return 0.0
        return self._boundaries[self._kinds[told.status]][1] if told.status in self._kinds else 1.0

    def bar(self, least: float, step: float, sources: Sequence[str]) -> float:
        """How likely to work a point of ``sources`` must be: ``least``, and more after each of theirs that failed.

        Points of others do not count: they say nothing about how well these know where the boundary is.
        """
        level = lowest = math.log(least / (1.0 - least))
        for t in self._all:
            if t.source in sources:
                level = max(lowest, level + step * (self.blame(t) - SHARE))
        return float(_logistic(np.array([level]))[0])

    def allowed(self, chance: Array, least: float, step: float) -> NDArray[np.bool_]:
        """Which of the search's own points may be tried, by their ``chance`` [m]: those above the bar, or the safest.

        Always the very safest one would be a bias.
        """
        return np.asarray(chance >= min(self.bar(least, step, OWN), float(np.quantile(chance, 1.0 - SAFEST))))


def kinds(told: Sequence[Told]) -> dict[str, str]:
    """The kind of failure of each status: the status itself, for the frequent ones."""
    counts = Counter(t.status for t in told if t.value is None)
    frequent = {status for status, _ in counts.most_common(KINDS - 1 if len(counts) > KINDS else KINDS)}
    return {status: status if status in frequent else "" for status in counts}


class Boundary:
    """A logistic boundary, fitted to ``x`` [n, f] and whether each of them ``failed`` [n].

    ``evidence`` is the logarithm of the data's probability, by Laplace's approximation.
    """

    def __init__(self, x: Array, failed: Array) -> None:
        a = np.column_stack([np.ones(len(x)), x])
        precision = np.concatenate([[LEVEL**-2], np.full(x.shape[1], STEEP**-2)])
        weights = np.zeros(a.shape[1])

        def loss(w: Array) -> float:
            z = a @ w
            return float(np.sum(np.logaddexp(0.0, z) - failed * z) + 0.5 * np.sum(precision * w * w))

        for _ in range(STEPS):
            p = _logistic(a @ weights)
            hessian = (a * (p * (1 - p))[:, None]).T @ a + np.diag(precision)
            step = np.linalg.solve(hessian, a.T @ (p - failed) + precision * weights)
            length, before = 1.0, loss(weights)
            while loss(weights - length * step) > before and length > 1e-3:
                length /= 2
            weights = weights - length * step
            if float(np.max(np.abs(step))) * length < 1e-6:
                break
        p = _logistic(a @ weights)
        self._weights, self._hessian = weights, (a * (p * (1 - p))[:, None]).T @ a + np.diag(precision)
        self.evidence = 0.5 * float(np.sum(np.log(precision)) - np.linalg.slogdet(self._hessian)[1]) - loss(weights)

    def predict(self, x: Array) -> Array:
        """The probability [m] of failing at ``x`` [m, f]."""
        b = np.column_stack([np.ones(len(x)), x])
        variance = np.sum(b * np.linalg.solve(self._hessian, b.T).T, axis=1)
        return _logistic(b @ self._weights / np.sqrt(1.0 + math.pi / 8.0 * variance))


def _logistic(z: Array) -> Array:
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * z)))
