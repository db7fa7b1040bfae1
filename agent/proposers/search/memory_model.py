"""A model of the peak memory of a run, and of the limit above which runs fail.

The logarithm of the peak memory is nearly linear in the logarithms of batch, depth and width, so a few reports predict
it within some per cent. The limit is unknown: runs that succeeded used less, runs that failed would have used more.

Sources:
    Linear regression with relevance determination: MacKay (1992), Bayesian interpolation; Bishop (2006), Pattern
    Recognition and Machine Learning, eqs. 7.82, 7.83 and 7.87 to 7.89.
"""

from __future__ import annotations

import numpy as np

from agent.proposers.search.gp import Array

REPORTS = 10  # reports needed
ROUNDS = 30  # of re-estimating the hyperparameters
SLOPES = (0.1, 10.0)  # least and largest prior deviation of a slope: log memory from one side of the cube to the other
LARGEST_PRECISION = 1e6  # of a report: a deviation of 0.1 %
HIGHEST = 2.0  # log of the largest possible limit over the largest memory of a success
LIMITS = 101  # values of the limit on a grid
LEAST = 1e-3  # probability that a run fails for a reason that the model does not know
PROBIT = 1.702  # a logistic function with this slope is within 0.01 of the normal distribution function


class MemoryModel:
    """Linear regression of log memory, and the probabilities of possible limits.

    ``evidence`` is the log probability of the failures, as for ``Boundary``.

    Args:
        x: features [n, f] of the runs that reported their memory.
        memory: peak memory [n], in any unit.
        failed: features [m, f] of the runs that were out of memory.
    """

    def __init__(self, x: Array, memory: Array, failed: Array) -> None:
        y = np.log(memory)
        self._centre, self._level = x.mean(axis=0), float(y.mean())
        z, t = x - self._centre, y - self._level
        low, high = SLOPES[1] ** -2, SLOPES[0] ** -2
        alpha, beta = np.ones(z.shape[1]), min(100.0 / max(float(t.var()), 1e-6), LARGEST_PRECISION)
        for _ in range(ROUNDS):
            covariance = np.linalg.inv(beta * z.T @ z + np.diag(alpha))
            slopes = beta * covariance @ z.T @ t
            determined = 1.0 - alpha * np.diag(covariance)
            rest = float(np.sum((t - z @ slopes) ** 2)) + 1e-5
            alpha = np.clip(np.maximum(determined, 1e-9) / (slopes**2 + 1e-12), low, high)
            beta = min((len(t) - float(determined.sum()) + 1.0) / rest, LARGEST_PRECISION)
        self._slopes, self._covariance, self._variance = slopes, covariance, 1.0 / beta
        self._limits = float(y.max()) + np.linspace(0.0, HIGHEST, LIMITS)
        likelihood = np.sum(np.log(np.maximum(self._excess(failed), LEAST)), axis=0)
        weights = np.exp(likelihood - likelihood.max())
        self.evidence = float(likelihood.max() + np.log(weights.mean()))
        self._weights = weights / weights.sum()

    def predict(self, x: Array) -> Array:
        """Probability [m] that a run with the features ``x`` [m, f] needs more memory than the limit."""
        return np.asarray(self._excess(x) @ self._weights)

    def _excess(self, x: Array) -> Array:
        """Probability [m, limits] that a run exceeds each limit."""
        z = x - self._centre
        deviation = np.sqrt(self._variance + np.sum(z @ self._covariance * z, axis=1))
        above = (self._level + z @ self._slopes)[:, None] - self._limits
        return np.asarray(0.5 * (1.0 + np.tanh(0.5 * PROBIT * above / deviation[:, None])))
