"""Which points will fail, by what failed before: a boundary for each kind of failure, and how sure one must be of it.

A kind of failure (out of memory, diverged, …) has a logistic boundary over the features of a point, fitted to the
maximum of its posterior; how little is known of it widens the prediction (Laplace's approximation: MacKay 1992,
*The evidence framework applied to classification networks*). Memory that runs reported says more of running out of it
than failures do, so its linear trend is a feature too.

How sure one must be follows from how often the search's own points failed of late: each failure raises the bar, each
success lowers it a little, so that the share of failures settles near ``SHARE`` whatever the boundary's errors are
(online calibration as in Gibbs and Candès 2021, arXiv 2106.00170).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from agent.proposers.base import Told
from agent.space import SearchSpace, Unit

Array = NDArray[np.float64]

SHARE = 0.03  # of the search's own points that may fail in the long run
STEP = 0.5  # log-odds by which a failure raises the bar
SAFEST = 1 / 8  # of the points may always be tried
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


def survival(space: SearchSpace, told: Sequence[Told], home: Unit, points: Sequence[Unit]) -> Array:
    """The probability [m] that a run at ``points`` of the cube does not fail."""
    told = told[-LARGEST:]
    chance = np.ones(len(points))
    status = kinds(told)
    if not status:
        return chance
    middle = features(space, [home])[0]
    x, new = features(space, [t.x for t in told]) - middle, features(space, points) - middle
    trend = memory_trend(x, told)
    for kind in sorted(set(status.values())):
        rows = [i for i, t in enumerate(told) if t.value is not None or status[t.status] == kind]
        a, b = x[rows], new
        if kind == "oom" and trend is not None:
            a, b = (np.column_stack([z, 2.0 * z @ trend[1:]]) for z in (a, b))
        chance *= 1.0 - boundary(a, np.array([told[i].value is None for i in rows], dtype=float), b)
    return chance


def kinds(told: Sequence[Told]) -> dict[str, str]:
    """The kind of failure of each status: the status itself, for the frequent ones."""
    counts = Counter(t.status for t in told if t.value is None)
    frequent = {status for status, _ in counts.most_common(KINDS - 1 if len(counts) > KINDS else KINDS)}
    return {status: status if status in frequent else "" for status in counts}


def boundary(x: Array, failed: Array, new: Array) -> Array:
    """The probability [m] of failing at ``new`` [m, f], by ``x`` [n, f] and whether each of them failed."""
    a = np.column_stack([np.ones(len(x)), x])
    b = np.column_stack([np.ones(len(new)), new])
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
    hessian = (a * (p * (1 - p))[:, None]).T @ a + np.diag(precision)
    variance = np.sum(b * np.linalg.solve(hessian, b.T).T, axis=1)
    return _logistic(b @ weights / np.sqrt(1.0 + math.pi / 8.0 * variance))


def allowed(chance: Array, told: Sequence[Told], least: float) -> NDArray[np.bool_]:
    """Which points may be tried, by their ``chance`` [m] of not failing: those above the bar, else the safest few.

    Where failures strike at random no point is safe, and always the safest one would be a bias without a gain.
    """
    level = lowest = math.log(least / (1.0 - least))
    for t in told:
        if t.source in ("cma", "gp"):  # points of others say nothing about this search's own boundary
            level = max(lowest, level + STEP * ((t.value is None) - SHARE))
    bar = float(_logistic(np.array([level]))[0])
    return np.asarray(chance >= min(bar, float(np.quantile(chance, 1.0 - SAFEST))))


def _logistic(z: Array) -> Array:
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * z)))
