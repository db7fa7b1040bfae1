"""A model of failed trials: the probability that a point succeeds, and the probability that a point must have.

Each kind of failure (out of memory, diverged, …) has a logistic boundary over the features of a point. The evidence of
the boundary against a constant rate decides whether the kind depends on the point at all: failures that strike at
random neither repel the search nor raise the threshold. Where runs report their memory, a model of the memory competes
to explain the runs out of memory.

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
from agent.proposers.search.gp import Array
from agent.proposers.search.memory_model import REPORTS, MemoryModel
from agent.space.space import SearchSpace, Unit

OWN, MODEL = ("cma", "gp"), ("llm",)  # sources of the points of CMA-ES and of a model
LEAST = {OWN: 0.3, MODEL: 0.5}  # success probability that a point needs, before any failed
STEP = {OWN: 0.5, MODEL: 1.0}  # log-odds by which a failure raises it
TARGET_RATE = 0.03  # long-run share of failures of a source
BOUND = 0.7  # success probability that suffices if the best point has no more
SAFEST = 1 / 32  # share of the candidates that is always admissible
LATEST = 400  # observations that a boundary is fitted to
SLOPE_SD = 8.0  # prior of a slope: log-odds from one side of the cube to the other
LEVEL_SD = 5.0  # prior of the log-odds at the baseline
NEWTON_STEPS = 25
OUT_OF_MEMORY = "oom"  # the status
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


def log_features(space: SearchSpace, points: Sequence[Unit]) -> Array:
    """``features`` [n, f] with the numbers on a logarithmic scale, where their bounds allow it."""
    x = np.array(points, dtype=float)
    for i, param in enumerate(space.params):
        if param.kind != "categorical" and param.low and param.low > 0 and not (param.log or param.power_of_two):
            low, high = float(param.low), float(param.high or param.low)
            x[:, i] = np.log1p(x[:, i] * (high / low - 1.0)) / np.log(high / low)
    return features(space, list(x))


class FailureModel:
    """Boundaries of all kinds of failure in ``observations``; ``home`` [dimensions] is the point of the baseline."""

    def __init__(self, space: SearchSpace, observations: Sequence[Observation], home: Unit) -> None:
        self._space, self._all, self._recent = space, observations, observations[-LATEST:]
        self._home = features(space, [home])[0]
        self._kinds = failure_kinds(self._recent)
        self._causes = {kind: self._fit(kind) for kind in sorted(set(self._kinds.values()))}

    def success_probability(self, points: Sequence[Unit]) -> Array:
        """Probability [m] that a run at ``points`` [m, dimensions] does not fail because of its location."""
        success = np.ones(len(points))
        if self._causes:
            x, sizes = features(self._space, points) - self._home, log_features(self._space, points)
            for causes in self._causes.values():
                success *= 1.0 - sum(p * c.predict(sizes if isinstance(c, MemoryModel) else x) for p, c in causes)
        return success

    def threshold(self, sources: tuple[str, ...]) -> float:
        """Success probability that a point of ``sources``, OWN or MODEL, needs; their results move it."""
        level = lowest = math.log(LEAST[sources] / (1.0 - LEAST[sources]))
        for o in self._all:
            if o.source in sources:
                level = max(lowest, level + STEP[sources] * (self._locality(o) - TARGET_RATE))
        return float(_logistic(np.array([level]))[0])

    def admissible(self, success: Array, known: float = 1.0) -> NDArray[np.bool_]:
        """Mask [m] of the CMA-ES samples with enough ``success`` probability [m].

        The safest 1/32 are always admissible: taking the single safest sample would bias the search. So are samples
        with the probability ``known`` of the best point, or ``BOUND`` if that is more: after a few failures near it,
        the search would leave it.
        """
        safest = float(np.quantile(success, 1.0 - SAFEST))
        return np.asarray(success >= min(self.threshold(OWN), safest, max(known, BOUND)))

    def _fit(self, kind: str) -> list[tuple[float, Boundary | MemoryModel]]:
        """What explains a kind by the location, and how probably; the rest is the probability of a constant rate."""
        seen = [o for o in self._recent if o.value is not None or self._kinds[o.status] == kind]
        failed = np.array([o.value is None for o in seen], dtype=float)
        x = features(self._space, [o.x for o in seen]) - self._home
        causes: list[Boundary | MemoryModel] = [Boundary(x, failed)]
        known = [o for o in self._recent if o.value is not None and o.memory_gb is not None]  # all of a run's memory
        if kind == OUT_OF_MEMORY and len(known) >= REPORTS:
            starved = [o.x for o in self._recent if o.status == OUT_OF_MEMORY]
            reports = np.array([o.memory_gb for o in known], dtype=float)
            sizes = log_features(self._space, [o.x for o in known])
            causes.append(MemoryModel(sizes, reports, log_features(self._space, starved)))
        constant = Boundary(np.zeros((len(seen), 0)), failed)
        evidence = np.array([constant.evidence, *(cause.evidence for cause in causes)])
        shares = np.exp(evidence - evidence.max())
        return list(zip((shares[1:] / shares.sum()).tolist(), causes, strict=True))

    def _locality(self, observation: Observation) -> float:
        """The probability that a failure depends on its location; 0 for a success, 1 for an unknown kind."""
        if observation.value is not None:
            return 0.0
        kind = self._kinds.get(observation.status)
        return 1.0 if kind is None else sum(share for share, _ in self._causes[kind])


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
