"""A model of failed trials: the probability that a point succeeds, and the probability that a point must have.

Each kind of failure (out of memory, diverged, …) has a logistic boundary over the features of a point. The evidence of
the boundary against a constant rate decides whether the kind depends on the point at all: failures that strike at
random neither repel the search nor raise the threshold.

The threshold adapts online. Each failure of a source raises it, each success lowers it slightly, so the share of
failures converges to ``TARGET_RATE`` whatever the errors of the boundaries.

Sources:
    Logistic regression with Laplace's approximation: MacKay (1992), The evidence framework applied to classification
    networks; Bishop (2006), Pattern Recognition and Machine Learning, eqs. 4.137 and 4.153. Threshold: Gibbs and Candès
    (2021), Adaptive conformal inference under distribution shift, arXiv 2106.00170, eq. 2.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from agent.proposers.search.base import Observation
from agent.space.space import SearchSpace, Unit

Array = NDArray[np.float64]

OWN = ("cma", "gp")  # sources of CMA-ES samples
TARGET_RATE = 0.03  # long-run share of failures of a source
SAFEST = 1 / 32  # share of the candidates that is always admissible
LATEST = 400  # observations that a boundary is fitted to
SLOPE_SD = 8.0  # prior of a slope: log-odds from one side of the cube to the other
LEVEL_SD = 5.0  # prior of the log-odds at the baseline
MEMORY_REPORTS = 25  # reports needed for the memory trend
NEWTON_STEPS = 25
KINDS = 8  # kinds of failure with a boundary; the rare ones share one


def features(space: SearchSpace, points: Sequence[Array]) -> Array:
    """Features [n, f] of points [n, dimensions]: numbers unchanged, categories one-hot with distance 1 between two."""
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


class FailureModel:
    """Boundaries of all kinds of failure in ``observations``; ``home`` [dimensions] is the point of the baseline."""

    def __init__(self, space: SearchSpace, observations: Sequence[Observation], home: Unit) -> None:
        self._space, self._all, self._recent = space, observations, observations[-LATEST:]
        self._home = features(space, [home])[0]
        self._kinds = failure_kinds(self._recent)
        self._x = features(space, [o.x for o in self._recent]) - self._home if self._kinds else np.zeros((0, 0))
        self._memory = self._memory_trend() if self._kinds else None
        self._boundaries = {kind: self._fit(kind) for kind in sorted(set(self._kinds.values()))}

    def success_probability(self, points: Sequence[Unit]) -> Array:
        """Probability [m] that a run at ``points`` [m, dimensions] does not fail because of its location."""
        success = np.ones(len(points))
        if self._boundaries:
            x = features(self._space, points) - self._home
            for kind, (boundary, local) in self._boundaries.items():
                success *= 1.0 - local * boundary.predict(self._columns(kind, x))
        return success

    def threshold(self, least: float, step: float, sources: Sequence[str]) -> float:
        """Success probability that a point of ``sources`` needs.

        Args:
            least: lower bound of the threshold.
            step: log-odds by which a failure raises the threshold.
            sources: only observations of these sources move the threshold.
        """
        level = lowest = math.log(least / (1.0 - least))
        for o in self._all:
            if o.source in sources:
                level = max(lowest, level + step * (self._locality(o) - TARGET_RATE))
        return float(_logistic(np.array([level]))[0])

    def admissible(self, success: Array, least: float, step: float) -> NDArray[np.bool_]:
        """Mask [m] of the CMA-ES samples with enough ``success`` probability [m].

        The safest 1/32 are always admissible: taking the single safest sample would bias the search.
        """
        return np.asarray(success >= min(self.threshold(least, step, OWN), float(np.quantile(success, 1.0 - SAFEST))))

    def _fit(self, kind: str) -> tuple[Boundary, float]:
        """The boundary of a kind, and the probability that the kind depends on the location."""
        rows = [i for i, o in enumerate(self._recent) if o.value is not None or self._kinds[o.status] == kind]
        failed = np.array([self._recent[i].value is None for i in rows], dtype=float)
        found = Boundary(self._columns(kind, self._x[rows]), failed)
        constant = Boundary(np.zeros((len(rows), 0)), failed)
        return found, float(_logistic(np.array([found.evidence - constant.evidence]))[0])

    def _locality(self, observation: Observation) -> float:
        """The probability that a failure depends on its location; 0 for a success, 1 for an unknown kind."""
        if observation.value is not None:
            return 0.0
        kind = self._kinds.get(observation.status)
        return 1.0 if kind is None else self._boundaries[kind][1]

    def _columns(self, kind: str, x: Array) -> Array:
        """The features of a kind; out of memory also depends on the memory trend."""
        return x if kind != "oom" or self._memory is None else np.column_stack([x, 2.0 * x @ self._memory])

    def _memory_trend(self) -> Array | None:
        """Slopes [f] of a ridge regression of log memory on the features; None with few reports."""
        known = [i for i, o in enumerate(self._recent) if o.memory_gb is not None and o.status != "oom"]
        if len(known) < MEMORY_REPORTS:
            return None
        y = np.log([self._recent[i].memory_gb or 1.0 for i in known])
        z = self._x[known] - self._x[known].mean(axis=0)
        return np.asarray(np.linalg.solve(z.T @ z + 0.05 * np.eye(z.shape[1]), z.T @ (y - y.mean())))


def failure_kinds(observations: Sequence[Observation]) -> dict[str, str]:
    """The kind of each failed status: the status itself if it is frequent, else ``""``."""
    counts = Counter(o.status for o in observations if o.value is None)
    frequent = {status for status, _ in counts.most_common(KINDS - 1 if len(counts) > KINDS else KINDS)}
    return {status: status if status in frequent else "" for status in counts}


class Boundary:
    """Bayesian logistic regression of ``failed`` [n] on ``x`` [n, f], by Laplace's approximation.

    ``evidence`` is the log probability of ``failed`` (Bishop 2006, eq. 4.137).
    """

    def __init__(self, x: Array, failed: Array) -> None:
        a = np.column_stack([np.ones(len(x)), x])
        precision = np.concatenate([[LEVEL_SD**-2], np.full(x.shape[1], SLOPE_SD**-2)])
        weights = np.zeros(a.shape[1])

        def loss(w: Array) -> float:
            z = a @ w
            return float(np.sum(np.logaddexp(0.0, z) - failed * z) + 0.5 * np.sum(precision * w * w))

        for _ in range(NEWTON_STEPS):
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
        """Probability [m] of a failure at ``x`` [m, f], averaged over the posterior (Bishop 2006, eq. 4.153)."""
        b = np.column_stack([np.ones(len(x)), x])
        variance = np.sum(b * np.linalg.solve(self._hessian, b.T).T, axis=1)
        return _logistic(b @ self._weights / np.sqrt(1.0 + math.pi / 8.0 * variance))


def _logistic(z: Array) -> Array:
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * z)))
