"""What runs that carry several edits say about each edit: the model of policy ``stacked``.

    z = level + effect of the seed + effects of the edits that the run carries + noise

where z is minus the value if lower values are better. Noise and correlation under equal seeds are unknown: there is one
Kalman filter for each correlation, weighted by how well it predicted the runs, and each weighs a grid of standard
deviations.

Source:
    H. Hotelling, Some improvements in weighing and other experimental techniques, 1944.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from statistics import fmean

import numpy as np

from agent.judge.effects import Worth, moments, normal_cdf, posterior
from agent.judge.filters import LEVEL, Array, EditEffect, Filters, SeedEffect
from agent.judge.noise import calibrated

# mixture prior of an effect, in standard deviations of a run: mean, spread, weight; "nothing" is exact
MIXTURE = (
    (-8, 3.0, 6), (-4, 1.5, 10), (-2, 0.8, 16), (-1, 0.4, 12), (-0.5, 0.25, 6), (0, 1e-3, 35),
    (0.5, 0.25, 2), (1, 0.4, 4), (2, 0.8, 5), (4, 1.5, 3), (8, 3.0, 1),
)  # fmt: skip
PRIOR_EDITS = 10.0  # the prior weights count for as much as this many edits seen
CORRELATIONS = np.array([0.0, 0.3, 0.6, 0.8, 0.9, 0.95, 0.98])  # between runs of two commits under one seed
SCALES = tuple(math.exp(0.2 * k - 1.2) for k in range(13))  # standard deviation of a run over that of the calibration
WALK = 0.1  # standard deviation of the level's random walk per run, in standard deviations of a run
SLOPE = 0.03  # prior standard deviation of the level's slope, in the same unit
WIDE = 5.0  # prior standard deviation of the first level, in the same unit
WILD = 2.5  # standard deviations beyond which an innovation counts as an outlier
HUGE = 12.0  # the same for a gain that only an edit can explain
JUNK = 0.001  # density of a run that no model explains
NEW_WEIGHT = 0.2  # weight of a run with a new edit in the evidence on noise and correlation

_MEANS, _SPREADS, _SHARES = (np.array(column, dtype=float) for column in zip(*MIXTURE, strict=True))
_VARIANCES, _PRIOR, _REAL = _SPREADS**2, _SHARES / _SHARES.sum(), _MEANS != 0


class Weighing:
    """The filters of one session and one type of device.

    Means of the filters are in units of the metric, covariances in variances of a run.
    """

    def __init__(self, calibration: Sequence[tuple[int, float]]) -> None:
        """Start from two or more runs of the baseline, (seed, z). Errors: see ``calibrated``."""
        values, self._spread = calibrated(calibration)
        ones = np.ones(len(CORRELATIONS))
        self._filters = Filters(fmean(values), WIDE**2 * ones, SLOPE**2 * ones)
        self._grid = self._spread * np.array(SCALES)  # possible standard deviations of a run
        self._logs = np.zeros((len(CORRELATIONS), len(SCALES)))  # log evidence
        self._decided = np.zeros(len(_MEANS))  # effects of decided edits, by component of the mixture
        self._parts: dict[int, Array] = {}  # the same of each undecided one
        self.worth: dict[int, Worth] = {}  # of each undecided edit after the last run
        self._outside: set[int] = set()  # edits whose effect is outside the mixture
        for seed, z in calibration:
            self.observe(seed, z)
        dof = len(values) - 1  # dof * spread^2 / sd^2 is chi-squared; this replaces the predictions above
        self._logs[:] = -dof * (np.log(self._grid) + (self._spread / self._grid) ** 2 / 2)

    # the life of an edit

    def open(self, trial: int) -> None:
        """Add the effect of a new edit."""
        weights = self.mixture()
        centre = float(weights @ _MEANS)
        variance = np.full(len(CORRELATIONS), float(weights @ (_MEANS**2 + _VARIANCES)) - centre**2)
        self._filters.add_edit(EditEffect(trial), centre * np.sqrt(self._sigma2()), variance)

    def observe(
        self,
        seed: int,
        z: float,
        carried: Collection[int] = (),
        new: Collection[int] = (),
        offset: float = 0.0,
        spread: float = 0.0,
    ) -> bool:
        """Read one run; return whether it was a wild loss of its new edits.

        Args:
            seed: Of the run.
            z: Minus the value where lower is better, else the value.
            carried: Undecided edits in the run.
            new: Those of them that no earlier run carried.
            offset: What the run lacks of edits kept since it began, less what it has of edits dropped since.
            spread: Standard error of ``offset``.
        """
        filters = self._filters
        filters.step(WALK**2)
        filters.add(SeedEffect(seed), CORRELATIONS)
        row = [LEVEL, filters.index[SeedEffect(seed)], *(filters.index[EditEffect(trial)] for trial in carried)]
        sigma2, weights = self._sigma2(), self.weights()
        column, variance = self._predict(row, spread**2 / sigma2)
        error = z + offset - filters.mean[:, row].sum(axis=1)
        errors = error / np.sqrt(variance * sigma2)
        ruined = bool(new) and float(weights @ (errors < -WILD)) > 0.5
        outside = ruined or (bool(new) and float(weights @ (errors > HUGE)) > 0.5)
        if outside:  # the difference is the new edits': widen their priors first, or all others would move
            self._outside.update(new)
            for trial in new:
                _, before = filters.stand_ins[EditEffect(trial)]
                filters.widen(EditEffect(trial), np.maximum(0.0, error**2 / sigma2 - before))
            column, variance = self._predict(row, spread**2 / sigma2)
        else:
            if len(new) < 2:
                self._learn(error, variance, next(iter(new), None))
            variance = np.maximum(variance, error**2 / sigma2 / WILD**2)
        filters.update(column, error, variance)
        prior, weights, sigma2 = self.mixture(), self.weights(), self._sigma2()
        for trial in dict.fromkeys((*self.worth, *new)):
            self.worth[trial] = self._read(trial, prior, weights, sigma2)
        return ruined

    def close(self, trial: int, kept: bool) -> None:
        """Decide an edit; a kept one becomes part of the level."""
        filters, at = self._filters, self._filters.index[EditEffect(trial)]
        self._decided = self._decided + self._parts.pop(trial, 0.0)
        if kept:
            filters.mean[:, LEVEL] += filters.mean[:, at]
            filters.covariance[:, LEVEL, :] += filters.covariance[:, at, :]
            filters.covariance[:, :, LEVEL] += filters.covariance[:, :, at]
        filters.remove([EditEffect(trial)])
        filters.mean, filters.covariance = map(np.ascontiguousarray, (filters.mean, filters.covariance))  # faster sums
        self.worth.pop(trial, None)
        self._outside.discard(trial)

    # what is known

    def mixture(self) -> Array:
        """The weights of the prior now, by all edits seen (empirical Bayes)."""
        weights = PRIOR_EDITS * _PRIOR + self._decided + sum(self._parts.values())
        return np.asarray(weights / weights.sum())

    def weights(self) -> Array:
        """Of the filters."""
        weights = np.exp(self._logs - self._logs.max()).sum(axis=1)
        return np.asarray(weights / weights.sum())

    @property
    def share(self) -> float:
        """Of gains among new edits."""
        return float(self.mixture()[_MEANS > 0].sum())

    def variances(self, seed: int, edits: Sequence[int], pending: Iterable[Collection[int]] = ()) -> Array:
        """Covariance of [level and seed, each of the edits] in variances of a run, averaged over the filters.

        Args:
            seed: Of the next run.
            edits: Undecided edits.
            pending: Edits in each run that is under way, as if it had ended.
        """
        index, weights = self._filters.index, self.weights()
        pick = np.zeros((1 + len(edits), self._filters.mean.shape[1]))
        pick[0, [LEVEL, index.get(SeedEffect(seed), LEVEL)]] = 1.0
        pick[range(1, 1 + len(edits)), [index[EditEffect(trial)] for trial in edits]] = 1.0
        found = pick @ np.tensordot(weights, self._filters.covariance, axes=1) @ pick.T
        for carried in pending:
            row = np.array([1.0, *(float(trial in carried) for trial in edits)])
            column = found @ row
            found = found - np.outer(column, column) / (row @ column + 1 - float(weights @ CORRELATIONS))
        return np.asarray(found)

    # the filter

    def _predict(self, row: list[int], more: Array) -> tuple[Array, Array]:
        """Covariance of the state with a run's prediction (K x n), and the variance of the prediction error (K)."""
        column = self._filters.covariance[:, :, row].sum(axis=2)
        return column, column[:, row].sum(axis=1) + 1 - CORRELATIONS + more

    def _learn(self, error: Array, variance: Array, new: int | None) -> None:
        """Weigh standard deviations and correlations by how well they predicted a run."""
        junk, squares = JUNK / self._spread, self._grid**2
        if new is None:
            self._logs += np.log(_density(error[:, None], squares * variance[:, None]) + junk)
            return
        mean, before = self._filters.stand_ins[EditEffect(new)]
        rest = np.maximum(variance - before, 1 - CORRELATIONS)[:, None, None]
        miss = (error + mean)[:, None, None] - _MEANS * self._grid[:, None]
        found = _density(miss, squares[:, None] * (rest + _VARIANCES)) @ self.mixture()
        self._logs += NEW_WEIGHT * np.log(found + junk)

    def _read(self, trial: int, prior: Array, weights: Array, sigma2: Array) -> Worth:
        """Put the mixture in the place of its stand-in, and average over the filters."""
        edit = EditEffect(trial)
        if trial in self._outside:  # the mixture has no loss of this size
            gain, variance = self._filters.marginal(edit)
            variance = np.maximum(variance, 1e-9) * sigma2
            return Worth(float(weights @ normal_cdf(gain / np.sqrt(variance))), *moments(weights, gain, variance))
        seen, error = self._filters.measured(edit, 1e-9, 1e-6)
        scale = sigma2[:, None]
        found = posterior(prior, _MEANS * np.sqrt(scale), _VARIANCES * scale, seen, error * sigma2, _REAL)
        self._parts[trial] = weights @ found.parts
        return Worth(float(weights @ found.probability), *moments(weights, found.gain, found.variance))

    def _sigma2(self) -> Array:
        """Variance of a run under each filter, averaged over the grid."""
        parts = np.exp(self._logs - self._logs.max(axis=1)[:, None])
        return np.asarray(parts @ self._grid**2 / parts.sum(axis=1))


def _density(error: Array, variance: Array) -> Array:
    return np.asarray(np.exp(-(error**2) / variance / 2) / np.sqrt(variance))
