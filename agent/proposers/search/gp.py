"""A Gaussian process for hundreds of points: Matérn 5/2 kernel, one length scale per parameter, observation noise.

The hyperparameters are the maximum a posteriori from a fixed start, so they depend on the data only and a resume
computes the same ones.

Sources:
    Rasmussen and Williams (2006), Gaussian Processes for Machine Learning: kernel eq. 4.17, prediction algorithm 2.1,
    marginal likelihood eq. 2.30 with gradient eq. 5.9.
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
UPPER = 0.8  # share of the values below the one whose distance to the best is the unit of ``compress``
STEPS = 40  # of the fit
LINEAR, CLIP = 3.0, 20.0  # values are compressed and clipped above these multiples of the unit

_lock = RLock()


@cache
def _libraries() -> Any:
    import scipy.linalg  # noqa: F401 - loads a second BLAS beside numpy's
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


@contextmanager
def one_thread() -> Iterator[None]:
    """Limit BLAS to one thread.

    Matrices of this size are slower with several threads, ten times slower beside a training run on the same cores.
    The limit applies to the whole process, so a second search waits: it would restore the limit instead of the
    original number of threads.
    """
    with _lock, _libraries().limit(limits=1, user_api="blas"):
        yield


def _renew_lock() -> None:
    global _lock
    _lock = RLock()


os.register_at_fork(after_in_child=_renew_lock)  # the thread that held the lock does not exist in the child


@dataclass(frozen=True)
class Kernel:
    """Hyperparameters, for standardised targets."""

    scales: Array  # length scales [groups], in units of the features
    variance: float  # signal variance
    noise: float  # noise variance of one run

    def between(self, a: Array, b: Array, groups: NDArray[np.int64]) -> Array:
        """Covariances [m, n] of ``a`` [m, f] and ``b`` [n, f]; ``groups`` [f] is the length scale of each feature."""
        a, b = a / self.scales[groups], b / self.scales[groups]
        square = np.sum(a * a, axis=1)[:, None] + np.sum(b * b, axis=1)[None, :] - 2.0 * a @ b.T
        return self.variance * matern(np.sqrt(np.maximum(square, 0.0)))


def matern(r: Array) -> Array:
    """Matérn 5/2 correlation at the scaled distance ``r`` (Rasmussen and Williams 2006, eq. 4.17)."""
    return np.asarray((1.0 + _SQRT5 * r + 5.0 / 3.0 * r * r) * np.exp(-_SQRT5 * r))


class GaussianProcess:
    """The posterior given observations.

    Args:
        x: features [n, f].
        y: values [n].
        groups: length scale [f] of each feature.
        runs: number of runs [n] behind each value.
        kernel: hyperparameters; default fitted to the observations.
    """

    def __init__(
        self, x: Array, y: Array, groups: NDArray[np.int64], runs: Array, kernel: Kernel | None = None
    ) -> None:
        from scipy.linalg import cho_solve

        self.x, self.y, self.groups, self.runs = x, y, groups, runs
        self._centre = float(np.mean(y))
        self._scale = float(np.std(y)) or 1.0
        z = (y - self._centre) / self._scale
        self.kernel = fit(x, z, groups, runs) if kernel is None else kernel
        k = self.kernel.between(x, x, groups)
        k[np.diag_indices_from(k)] += self.kernel.noise / runs + _JITTER * self.kernel.variance
        self._lower = np.linalg.cholesky(k)
        self._alpha = cho_solve((self._lower, True), z)

    @property
    def noise(self) -> float:
        """Standard deviation of one run."""
        return self._scale * math.sqrt(self.kernel.noise)

    def predict(self, x: Array) -> tuple[Array, Array]:
        """Mean [m] and standard deviation [m] of the noise-free function at ``x`` [m, f]."""
        from scipy.linalg import solve_triangular

        cross = self.kernel.between(x, self.x, self.groups)
        half = solve_triangular(self._lower, cross.T, lower=True)
        variance = np.maximum(self.kernel.variance - np.sum(half * half, axis=0), 1e-12)
        return self._centre + self._scale * (cross @ self._alpha), self._scale * np.sqrt(variance)

    def believing(self, x: Array) -> GaussianProcess:
        """The process as if its own mean at ``x`` [m, f] had been observed."""
        y = np.concatenate([self.y, self.predict(x)[0]])
        runs = np.concatenate([self.runs, np.ones(len(x))])
        return GaussianProcess(np.vstack([self.x, x]), y, self.groups, runs, self.kernel)


def fit(x: Array, z: Array, groups: NDArray[np.int64], runs: Array) -> Kernel:
    """Maximum a posteriori hyperparameters for standardised targets ``z`` [n].

    Log-normal priors: length scales around a quarter of the diagonal of the cube, signal variance around 1, noise
    around 0.02. Longer scales make the process certain where it has no results (docs/decisions/search.md).

    Source: length scales that grow with √d: Hvarfner, Hellsten and Nardi (2024), arXiv 2402.02229.
    """
    from scipy.linalg.lapack import dpotri
    from scipy.optimize import minimize

    count = int(groups.max()) + 1
    squares = np.stack([_squares(x[:, groups == g]) for g in range(count)])  # [groups, n, n]
    centre = np.concatenate([np.full(count, math.log(0.25 * math.sqrt(count))), [0.0, math.log(0.02)]])
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
        half = dpotri(lower, lower=1)[0]  # the lower triangle of the inverse of K
        inverse = half + np.tril(half, -1).T
        alpha = inverse @ z
        weight = 0.5 * (inverse - np.outer(alpha, alpha))  # d loss / d K
        slope = weight * (variance * 5.0 / 3.0 * (1.0 + _SQRT5 * r) * np.exp(-_SQRT5 * r))
        of_scales = np.tensordot(squares, slope, axes=2) * scales**-2.0
        gradient = np.concatenate([of_scales, [np.sum(weight * k), np.sum(np.diag(weight) * noise / runs)]])
        off = (theta - centre) / spread
        value = 0.5 * float(z @ alpha) + float(np.sum(np.log(np.diag(lower)))) + 0.5 * float(off @ off)
        return value, gradient + off / spread

    bounds = [(math.log(0.03), math.log(50.0))] * count + [(math.log(0.02), math.log(50.0)), (math.log(1e-5), 0.5)]
    found = minimize(loss, centre, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": STEPS})
    return Kernel(np.exp(found.x[:-2]), math.exp(found.x[-2]), math.exp(found.x[-1]))


def log_expected_improvement(best: float, mean: Array, deviation: Array) -> Array:
    """log E[max(best − f, 0)] for f ~ N(mean, deviation²) (Jones et al. 1998, eq. 15), without underflow."""
    from scipy.special import log_ndtr

    z = (best - mean) / deviation
    near = np.maximum(z, -30.0)
    density = np.exp(-0.5 * near * near) / math.sqrt(2 * math.pi)
    value = density + near * np.exp(log_ndtr(near))
    # first term of the asymptotic series
    far = -0.5 * z * z - 0.5 * math.log(2 * math.pi) - 2.0 * np.log(np.maximum(np.abs(z), 1.0))
    with np.errstate(divide="ignore"):
        logarithm = np.where(z > -6.0, np.log(np.maximum(value, 1e-300)), far)
    return np.asarray(logarithm + np.log(deviation))


def compress(y: Array) -> Array:
    """Values far above the best on a logarithmic scale, clipped: outliers carry little information about the optimum.

    The unit is the distance from the best value to the ``UPPER`` quantile; late in a search, the median differs from
    the best by the noise only. Values up to ``LINEAR`` units above the best are kept: a bend among good values would
    hide the curvature at the optimum.
    """
    low = float(np.min(y))
    unit = float(np.quantile(y, UPPER)) - low or 1.0
    above = np.minimum((y - low) / unit, CLIP)
    return np.where(above > LINEAR, low + unit * LINEAR * (1.0 + np.log(np.maximum(above / LINEAR, 1.0))), y)


def _squares(x: Array) -> Array:
    """Squared distances [n, n]."""
    return np.asarray(np.sum((x[:, None, :] - x[None, :, :]) ** 2, axis=2))
