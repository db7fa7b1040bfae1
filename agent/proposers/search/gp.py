"""A small Gaussian process: Matérn 5/2, a length scale for each group of features, noise (Rasmussen, Williams 2006).

Sizes are a night's: hundreds of points, tens of features. Hyperparameters maximise the posterior under mild priors,
always from the same start, so that they depend on the data alone and a resume comes to the same ones.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from threading import RLock
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_SQRT5 = math.sqrt(5.0)
_JITTER = 1e-8
FAR = 20.0  # times the distance of the median to the best

_alone = RLock()


@cache
def _libraries() -> Any:
    import scipy.linalg  # noqa: F401 - brings a library of its own, beside numpy's
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


@contextmanager
def one_thread() -> Iterator[None]:
    """Linear algebra in one thread meanwhile.

    For matrices of this size more threads wait for each other longer than they compute, and ten times as long where
    another program has the processors, as a training run on them does. The number is the whole process's: a search in
    another thread waits here, or it would take the one thread that it finds for what to put back.
    """
    with _alone, _libraries().limit(limits=1, user_api="blas"):
        yield


def _renew() -> None:
    global _alone
    _alone = RLock()


os.register_at_fork(after_in_child=_renew)  # the thread that held it is not there


@dataclass(frozen=True)
class Kernel:
    """``scales`` [groups] in units of the features; variances in units of the standardised targets."""

    scales: Array
    variance: float
    noise: float

    def between(self, a: Array, b: Array, groups: NDArray[np.int64]) -> Array:
        """[m, n] covariances of the features ``a`` [m, f] and ``b`` [n, f]; ``groups`` [f] gives each one's scale."""
        a, b = a / self.scales[groups], b / self.scales[groups]
        square = np.sum(a * a, axis=1)[:, None] + np.sum(b * b, axis=1)[None, :] - 2.0 * a @ b.T
        return self.variance * matern(np.sqrt(np.maximum(square, 0.0)))


def matern(r: Array) -> Array:
    """Correlation at scaled distance ``r``; differentiable twice."""
    return np.asarray((1.0 + _SQRT5 * r + 5.0 / 3.0 * r * r) * np.exp(-_SQRT5 * r))


class GaussianProcess:
    """The posterior given ``x`` [n, f] and ``y`` [n]; ``runs`` [n] are the runs behind each value.

    Without a ``kernel`` the hyperparameters are fitted.
    """

    def __init__(
        self, x: Array, y: Array, groups: NDArray[np.int64], runs: Array | None = None, kernel: Kernel | None = None
    ) -> None:
        self.groups = groups
        self._x = x
        self._centre = float(np.mean(y))
        self._scale = float(np.std(y)) or 1.0
        runs = np.ones(len(y)) if runs is None else runs
        z = (y - self._centre) / self._scale
        self.kernel = fit(x, z, groups, runs) if kernel is None else kernel
        k = self.kernel.between(x, x, groups)
        k[np.diag_indices_from(k)] += self.kernel.noise / runs + _JITTER * self.kernel.variance
        self._lower = np.linalg.cholesky(k)
        self._alpha = np.linalg.solve(self._lower.T, np.linalg.solve(self._lower, z))

    def predict(self, x: Array) -> tuple[Array, Array]:
        """Mean [m] and standard deviation [m] of the noiseless function at ``x`` [m, f]."""
        cross = self.kernel.between(x, self._x, self.groups)
        half = np.linalg.solve(self._lower, cross.T)
        variance = np.maximum(self.kernel.variance - np.sum(half * half, axis=0), 1e-12)
        return self._centre + self._scale * (cross @ self._alpha), self._scale * np.sqrt(variance)


def fit(x: Array, z: Array, groups: NDArray[np.int64], runs: Array, steps: int = 40) -> Kernel:
    """Hyperparameters for standardised targets ``z`` [n]: the maximum of the posterior.

    Priors are normal in the logarithm: length scales around half the diagonal of the cube (they grow with the root of
    the dimension, Hvarfner et al. 2024), little noise, variance around 1.
    """
    from scipy.optimize import minimize

    count = int(groups.max()) + 1
    squares = np.stack([_squares(x[:, groups == g]) for g in range(count)])  # [groups, n, n]
    centre = np.concatenate([np.full(count, math.log(0.5 * math.sqrt(count))), [0.0, math.log(0.02)]])
    spread = np.concatenate([np.full(count, 1.0), [1.0, 1.5]])

    def loss(theta: Array) -> tuple[float, Array]:
        scales, variance, noise = np.exp(theta[:-2]), math.exp(theta[-2]), math.exp(theta[-1])
        r = np.sqrt(np.maximum(np.tensordot(scales**-2.0, squares, axes=1), 0.0))
        k = variance * matern(r)
        full = k.copy()
        full[np.diag_indices_from(full)] += noise / runs + _JITTER * variance
        try:
            lower = np.linalg.cholesky(full)
        except np.linalg.LinAlgError:
            return 1e10, np.zeros_like(theta)
        inverse_lower = np.linalg.solve(lower, np.eye(len(z)))
        inverse = inverse_lower.T @ inverse_lower
        alpha = inverse @ z
        weight = 0.5 * (inverse - np.outer(alpha, alpha))  # d loss / d K
        slope = weight * (variance * 5.0 / 3.0 * (1.0 + _SQRT5 * r) * np.exp(-_SQRT5 * r))
        gradient = np.concatenate(
            [
                np.tensordot(squares, slope, axes=2) * scales**-2.0,
                [float(np.sum(weight * k)), float(np.sum(np.diag(weight) * noise / runs))],
            ]
        )
        off = (theta - centre) / spread
        value = 0.5 * float(z @ alpha) + float(np.sum(np.log(np.diag(lower)))) + 0.5 * float(off @ off)
        return value, gradient + off / spread

    bounds = [(math.log(0.03), math.log(50.0))] * count + [(math.log(0.02), math.log(50.0)), (math.log(1e-5), 0.5)]
    found = minimize(loss, centre, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": steps})
    return Kernel(np.exp(found.x[:-2]), math.exp(found.x[-2]), math.exp(found.x[-1]))


def log_expected_improvement(best: float, mean: Array, deviation: Array) -> Array:
    """Logarithm of E[max(best - f, 0)] for f ~ N(mean, deviation²); does not underflow far from the best."""
    from scipy.special import log_ndtr

    z = (best - mean) / deviation
    near = np.maximum(z, -30.0)
    density = np.exp(-0.5 * near * near) / math.sqrt(2 * math.pi)
    value = density + near * np.exp(log_ndtr(near))
    far = -0.5 * z * z - 0.5 * math.log(2 * math.pi) - 2.0 * np.log(np.maximum(np.abs(z), 1.0))  # the tail's first term
    with np.errstate(divide="ignore"):
        logarithm = np.where(z > -6.0, np.log(np.maximum(value, 1e-300)), far)
    return np.asarray(logarithm + np.log(deviation))


def compress(y: Array) -> Array:
    """Values above the median on a logarithmic scale: how bad a bad run was says little about the good ones.

    Values far away are all the same: a run that diverged and gave a number all the same would stretch the scale.
    """
    middle = float(np.median(y))
    unit = middle - float(np.min(y)) or 1.0
    excess = np.clip(y, middle, middle + FAR * unit) - middle
    return np.where(y > middle, middle + unit * np.log1p(excess / unit), y)


def _squares(x: Array) -> Array:
    """Squared distances [n, n]."""
    return np.asarray(np.sum((x[:, None, :] - x[None, :, :]) ** 2, axis=2))
