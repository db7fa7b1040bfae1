"""A bank of Kalman filters over one state.

Source:
    R. E. Kalman, A new approach to linear filtering and prediction problems, 1960.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


class Filters:
    """F filters that read the same runs under different assumptions.

    Filters lie in blocks of ``size``: filter ``k`` of every block assumes the same noise. ``mean`` (F x n) and
    ``covariance`` (F x n x n) are over the state, ``log_weights`` (F) is the log evidence of the runs.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.mean: Array = np.zeros((size, 0))
        self.covariance: Array = np.zeros((size, 0, 0))
        self.log_weights: Array = np.zeros(size)

    @property
    def blocks(self) -> int:
        return len(self.log_weights) // self.size

    def add(self, mean: Array, variance: Array) -> int:
        """Add an independent variable to the state; return its index."""
        count, n = self.mean.shape
        self.mean = np.concatenate([self.mean, mean[:, None]], axis=1)
        covariance = np.zeros((count, n + 1, n + 1))
        covariance[:, :n, :n] = self.covariance
        covariance[:, n, n] = variance
        self.covariance = covariance
        return int(n)

    def remove(self, indices: Collection[int]) -> None:
        left = [index for index in range(self.mean.shape[1]) if index not in indices]
        self.mean = self.mean[:, left]
        self.covariance = self.covariance[:, left][:, :, left]

    def predict(self, row: Array) -> tuple[Array, Array]:
        """Covariance of the state with a sum over it (F x n), and the variance of the sum (F).

        Args:
            row: Coefficients of the sum, F x n.
        """
        column = (self.covariance @ row[:, :, None])[:, :, 0]
        return column, np.asarray((column * row).sum(axis=1))

    def update(self, column: Array, error: Array, variance: Array) -> None:
        """Read a value that differs from its prediction by ``error``, of variance ``variance``."""
        self.log_weights = self.log_weights - (np.log(variance) + error**2 / variance) / 2
        self.mean = self.mean + column * (error / variance)[:, None]
        self.covariance = self.covariance - column[:, :, None] * column[:, None, :] / variance[:, None, None]

    def transform(self, matrix: Array) -> None:
        """Replace the state by ``matrix`` (F x n x n) times the state."""
        self.mean = (matrix @ self.mean[:, :, None])[:, :, 0]
        self.covariance = matrix @ self.covariance @ matrix.transpose(0, 2, 1)

    def fork(self, priors: Sequence[float]) -> None:
        """Copy all blocks once for each hypothesis, with its prior probability."""
        count = len(priors)
        self.mean = np.tile(self.mean, (count, 1))
        self.covariance = np.tile(self.covariance, (count, 1, 1))
        self.log_weights = np.concatenate([self.log_weights + np.log(prior) for prior in priors])

    def select(self, blocks: Sequence[int]) -> None:
        """Leave these blocks only."""
        places = self.places(blocks)
        self.mean, self.covariance, self.log_weights = (
            self.mean[places],
            self.covariance[places],
            self.log_weights[places],
        )

    def places(self, blocks: Sequence[int]) -> NDArray[np.int64]:
        """Indices of the filters of these blocks."""
        return np.concatenate([np.arange(block * self.size, (block + 1) * self.size) for block in blocks])

    def merge(self, groups: Sequence[Sequence[int]]) -> None:
        """Make one block of each group: a Gaussian with the moments of the weighted mixture."""
        means, covariances, logs = [], [], []
        for group in groups:
            found = self.log_weights.reshape(self.blocks, self.size)[list(group)]
            top = found.max(axis=0)
            weights = np.exp(found - top)
            logs.append(top + np.log(weights.sum(axis=0)))
            weights = weights / weights.sum(axis=0)
            mean = self.mean.reshape(self.blocks, self.size, -1)[list(group)]
            n = mean.shape[2]
            covariance = self.covariance.reshape(self.blocks, self.size, n, n)[list(group)]
            centre = (weights[:, :, None] * mean).sum(axis=0)
            away = mean - centre
            spread = covariance + away[:, :, :, None] * away[:, :, None, :]
            means.append(centre)
            covariances.append((weights[:, :, None, None] * spread).sum(axis=0))
        self.mean, self.covariance = np.concatenate(means), np.concatenate(covariances)
        self.log_weights = np.concatenate(logs)
