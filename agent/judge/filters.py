"""A bank of Kalman filters over one state. ``belief`` and ``weighing`` are both built on it.

The state is [level, slope, effects of seeds, effects of the edits under test]. The level is the value of the incumbent.
It follows a random walk with a slope, since machines drift. The prior of an edit's effect is a mixture, and a filter
knows Gaussians only: a Gaussian with the mixture's moments stands in for it, and ``measured`` takes it out again.

Source:
    R. E. Kalman, A new approach to linear filtering and prediction problems, 1960.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

LEVEL, SLOPE = 0, 1  # indices into the state


class SeedEffect(NamedTuple):
    """Name of the effect of a seed."""

    seed: int
    trial: int | None = None  # whose edit draws other random numbers; None: the effect that other commits share


class EditEffect(NamedTuple):
    """Name of the effect of an edit under test."""

    trial: int


Name = SeedEffect | EditEffect


class Filters:
    """F filters that read the same runs under different assumptions.

    Filters lie in blocks of ``size``: filter ``k`` of every block assumes the same noise. ``mean`` (F x n) and
    ``covariance`` (F x n x n) are over the state, ``log_weights`` (F) is the log evidence of the runs.
    """

    def __init__(self, mean: float, level: Array, slope: Array) -> None:
        """Start with one block: ``mean`` of the level, and the variances of level and slope (F)."""
        self.size = len(level)
        self.mean: Array = np.zeros((self.size, 2))
        self.mean[:, LEVEL] = mean
        self.covariance: Array = np.zeros((self.size, 2, 2))
        self.covariance[:, LEVEL, LEVEL], self.covariance[:, SLOPE, SLOPE] = level, slope
        self.log_weights: Array = np.zeros(self.size)
        self.index: dict[Name, int] = {}  # of each effect in the state, in this order
        self.stand_ins: dict[EditEffect, tuple[Array, Array]] = {}  # mean and variance (F)

    # the state

    def add(self, name: Name, variance: Array, mean: Array | None = None) -> None:
        """Add an independent effect to the state, unless it is there."""
        if name in self.index:
            return
        count, n = self.mean.shape
        column = np.zeros(count) if mean is None else mean
        self.mean = np.concatenate([self.mean, column[:, None]], axis=1)
        covariance = np.zeros((count, n + 1, n + 1))
        covariance[:, :n, :n] = self.covariance
        covariance[:, n, n] = variance
        self.covariance = covariance
        self.index[name] = n

    def add_edit(self, edit: EditEffect, mean: Array, variance: Array) -> None:
        """Add the effect of an edit, given the moments of its prior."""
        self.stand_ins[edit] = mean, variance
        self.add(edit, variance, mean)

    def widen(self, edit: EditEffect, more: Array) -> None:
        """Add variance to the prior of an edit."""
        mean, variance = self.stand_ins[edit]
        self.stand_ins[edit] = mean, variance + more
        at = self.index[edit]
        self.covariance[:, at, at] += more

    def marginal(self, edit: EditEffect) -> tuple[Array, Array]:
        """Mean and variance of an effect."""
        at = self.index[edit]
        return self.mean[:, at], self.covariance[:, at, at]

    def measured(self, edit: EditEffect, least: Array | float, precision: Array | float) -> tuple[Array, Array]:
        """The effect as the runs alone measure it, and the variance of its error: without the stand-in.

        Args:
            least: Lower bound of the effect's variance.
            precision: Lower bound of the precision of the runs.
        """
        (mean, variance), (before, wide) = self.marginal(edit), self.stand_ins[edit]
        variance = np.maximum(variance, least)
        error = 1 / np.maximum(1 / variance - 1 / wide, precision)
        return (mean / variance - before / wide) * error, error

    def remove(self, names: Collection[Name]) -> None:
        gone = {self.index.pop(name) for name in names}
        left = [at for at in range(self.mean.shape[1]) if at not in gone]
        self.mean, self.covariance = self.mean[:, left], self.covariance[:, left][:, :, left]
        self.index = dict(zip(self.index, range(SLOPE + 1, len(left)), strict=True))
        self.stand_ins = {edit: found for edit, found in self.stand_ins.items() if edit in self.index}

    # the runs

    def step(self, variance: Array | float) -> None:
        """One run later: the level moves by its slope and by a random walk of this variance."""
        mean, covariance = self.mean, self.covariance
        mean[:, LEVEL] += mean[:, SLOPE]
        covariance[:, LEVEL, :] += covariance[:, SLOPE, :]
        covariance[:, :, LEVEL] += covariance[:, :, SLOPE]
        covariance[:, LEVEL, LEVEL] += variance

    def predict(self, row: Array) -> tuple[Array, Array]:
        """Covariance of the state with a sum over it (F x n), and the variance of the sum (F).

        Args:
            row: Coefficients of the sum, F x n.
        """
        column = (self.covariance @ row[:, :, None])[:, :, 0]
        return column, np.asarray((column * row).sum(axis=1))

    def update(self, column: Array, error: Array, variance: Array) -> None:
        """Read a value that differs from its prediction by ``error``, of variance ``variance``."""
        self.mean = self.mean + column * (error / variance)[:, None]
        self.covariance = self.covariance - column[:, :, None] * column[:, None, :] / variance[:, None, None]

    # blocks of filters

    def fork(self, priors: Sequence[float]) -> None:
        """Copy all blocks once for each hypothesis, with its prior probability."""
        logs = np.concatenate([self.log_weights + np.log(prior) for prior in priors])
        self._select(np.tile(np.arange(len(self.log_weights)), len(priors)))
        self.log_weights = logs

    def select(self, blocks: Sequence[int]) -> None:
        """Leave these blocks only."""
        self._select(np.concatenate([np.arange(block * self.size, (block + 1) * self.size) for block in blocks]))

    def _select(self, places: NDArray[np.int64]) -> None:
        self.mean, self.covariance = self.mean[places], self.covariance[places]
        self.log_weights = self.log_weights[places]
        self.stand_ins = {edit: (mean[places], wide[places]) for edit, (mean, wide) in self.stand_ins.items()}

    def merge(self, groups: Sequence[Sequence[int]]) -> None:
        """Make one block of each group: a Gaussian with the moments of the weighted mixture."""
        means, covariances, logs = [], [], []
        for group in groups:
            found, mean, covariance = (
                self._of_blocks(values)[list(group)] for values in (self.log_weights, self.mean, self.covariance)
            )
            top = found.max(axis=0)
            weights = np.exp(found - top)
            logs.append(top + np.log(weights.sum(axis=0)))
            weights = weights / weights.sum(axis=0)
            centre = (weights[:, :, None] * mean).sum(axis=0)
            away = mean - centre
            spread = covariance + away[:, :, :, None] * away[:, :, None, :]
            means.append(centre)
            covariances.append((weights[:, :, None, None] * spread).sum(axis=0))
        self.mean, self.covariance = np.concatenate(means), np.concatenate(covariances)
        self.log_weights = np.concatenate(logs)
        for edit, moments in self.stand_ins.items():  # the blocks of a group differ after a wild loss only
            mean, wide = (
                np.concatenate([self._of_blocks(values)[list(group)].mean(axis=0) for group in groups])
                for values in moments
            )
            self.stand_ins[edit] = mean, wide

    def _of_blocks(self, values: Array) -> Array:
        return values.reshape(-1, self.size, *values.shape[1:])
