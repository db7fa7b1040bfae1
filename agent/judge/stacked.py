"""Policy ``stacked``: one run carries several undecided edits, and one linear model tells them apart. Pure functions.

    z = level + effect of the seed + effects of the edits that the run carries + noise

where z is minus the value if lower values are better. Each run carries its new edits and a chosen half of the edits
that are still undecided (a weighing design), so that measuring an edit again costs no extra run. Noise and
correlation under equal seeds are unknown: there is one Kalman filter for each correlation, weighted by how well it
predicted the runs, and each weighs a grid of standard deviations.

Sources:
    H. Hotelling, Some improvements in weighing and other experimental techniques, 1944.
    R. E. Kalman, A new approach to linear filtering and prediction problems, 1960.
"""

from __future__ import annotations

import math
import random
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from agent.judge.effects import normal_cdf
from agent.judge.noise import calibrated

Array = NDArray[np.float64]

# mixture prior of an effect, in standard deviations of a run: mean, spread, weight; "nothing" is exact
MIXTURE = (
    (-8, 3.0, 6), (-4, 1.5, 10), (-2, 0.8, 16), (-1, 0.4, 12), (-0.5, 0.25, 6), (0, 1e-3, 35),
    (0.5, 0.25, 2), (1, 0.4, 4), (2, 0.8, 5), (4, 1.5, 3), (8, 3.0, 1),
)  # fmt: skip
PRIOR_EDITS = 10.0  # the prior weights count for as much as this many edits seen
CORRELATIONS = (0.0, 0.3, 0.6, 0.8, 0.9, 0.95, 0.98)  # between runs of two commits under one seed
SCALES = tuple(math.exp(0.2 * k - 1.2) for k in range(13))  # standard deviation of a run over that of the calibration
WALK = 0.1  # standard deviation of the level's random walk per run, in standard deviations of a run
SLOPE = 0.03  # prior standard deviation of the level's slope, in the same unit
WIDE = 5.0  # prior standard deviation of the first level, in the same unit
WILD = 2.5  # standard deviations beyond which an innovation counts as an outlier
HUGE = 12.0  # the same for a gain that only an edit can explain
JUNK = 0.001  # density of a run that no model explains
NEW_WEIGHT = 0.2  # weight of a run with a new edit in the evidence on noise and correlation

HALVES, FLIPS = 32, 12  # random rows, and flips of the best one
MOST_OPEN = 20  # undecided edits
MOST_FOR_TWO = 10  # undecided edits up to which a run carries two new ones
RUINED = 0.1  # share of new edits that fail or lose wildly, up to which a run carries two new ones
NOMINATE, PASS = 0.8, 0.95  # probability of a gain
PASS_IN = PASS_OUT = 3  # runs with and without a nominated edit before it passes
RUNS_PER_CHECK = 24  # runs between two runs of the kept edits alone, after which the branch moves
LAST_RUNS = 5  # runs at the end without new edits
FEW = 3  # undecided edits below which halves are no design: each edit is then in and out in turn
MOST_AHEAD = 2  # runs with an edit more than without it, where edits are few
HOPELESS = 0.5  # an edit is dropped when its probability is below this share of a new edit's

_MEANS, _SPREADS, _SHARES = (np.array(column, dtype=float) for column in zip(*MIXTURE, strict=True))
_VARIANCES = _SPREADS**2
_PRIOR = _SHARES / _SHARES.sum()
_NOTHING = _MEANS == 0
_LEVEL, _SLOPE = 0, 1  # indices into the state


@dataclass(frozen=True)
class Worth:
    """What is known of one edit. Gains are in units of the metric; positive is better."""

    probability: float  # that the edit is a gain
    gain: float  # posterior mean
    se: float  # posterior standard deviation


class Weighing:
    """The filters of one session and one type of device.

    ``mean`` (K x n) is in units of the metric, ``covariance`` (K x n x n) in variances of a run. Both are over
    [level, slope, effects of seeds and of undecided edits].
    """

    def __init__(self, calibration: Sequence[tuple[int, float]]) -> None:
        """Start from runs of the baseline.

        Args:
            calibration: (seed, z) of two or more runs that differ.

        Raises:
            ValueError: The runs do not vary, or there are fewer than two.
        """
        values, spread = calibrated(calibration)
        count = len(CORRELATIONS)
        self._spread = spread
        self._rho = np.array(CORRELATIONS)
        self._grid = spread * np.array(SCALES)
        self._logs = np.zeros((count, len(SCALES)))
        self.mean = np.zeros((count, 2))
        self.mean[:, _LEVEL] = fmean(values)
        self.covariance = np.zeros((count, 2, 2))
        self.covariance[:, _LEVEL, _LEVEL] = WIDE**2
        self.covariance[:, _SLOPE, _SLOPE] = SLOPE**2
        self._seeds: dict[int, int] = {}  # seed: index in the state
        self._edits: dict[int, int] = {}  # trial: index in the state
        self._stand_in: dict[int, tuple[Array, Array]] = {}  # trial: mean and variance that stand in for the mixture
        self._wide: set[int] = set()  # edits whose effect is outside the mixture
        self._seen = np.zeros(len(_MEANS))  # effects of decided edits, by component of the mixture
        self._parts: dict[int, Array] = {}  # the same of each undecided one
        self._worth: dict[int, Worth] = {}
        for seed, z in calibration:
            self.observe(seed, z)
        dof = len(values) - 1  # dof * spread^2 / sd^2 is chi-squared; this replaces the predictions above
        self._logs[:] = -dof * (np.log(self._grid) + (spread / self._grid) ** 2 / 2)

    # the life of an edit

    def open(self, trial: int) -> None:
        """Add the effect of a new edit. A Gaussian with the mixture's moments stands in for the mixture."""
        weights = self.mixture()
        centre = float(weights @ _MEANS)
        variance = float(weights @ (_MEANS**2 + _VARIANCES)) - centre**2
        mean = centre * np.sqrt(self._sigma2())
        self._stand_in[trial] = (mean, np.full(len(self._rho), variance))
        self._edits[trial] = self._add(mean, np.full(len(self._rho), variance))

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
        self._step()
        if seed not in self._seeds:
            self._seeds[seed] = self._add(np.zeros(len(self._rho)), self._rho)
        row = [_LEVEL, self._seeds[seed], *(self._edits[trial] for trial in carried)]
        sigma2 = self._sigma2()
        gain, variance = self._predict(row, spread**2 / sigma2)
        error = z + offset - self.mean[:, row].sum(axis=1)
        errors = error / np.sqrt(variance * sigma2)
        ruined = bool(new) and float(self.weights() @ (errors < -WILD)) > 0.5
        wide = ruined or (bool(new) and float(self.weights() @ (errors > HUGE)) > 0.5)
        if not wide and len(new) < 2:
            self._learn(error, variance, next(iter(new), None))
        if wide:  # the difference is the new edits': widen their priors first, or all others would move
            self._wide.update(new)
            for trial in new:
                mean, before = self._stand_in[trial]
                more = np.maximum(0.0, error**2 / sigma2 - before)
                self.covariance[:, self._edits[trial], self._edits[trial]] += more
                self._stand_in[trial] = (mean, before + more)
            gain, variance = self._predict(row, spread**2 / sigma2)
        else:
            variance = np.maximum(variance, error**2 / sigma2 / WILD**2)
        self.mean = self.mean + gain * (error / variance)[:, None]
        self.covariance = self.covariance - gain[:, :, None] * gain[:, None, :] / variance[:, None, None]
        self._prior = self.mixture()
        for trial in (*self._worth, *(trial for trial in new if trial not in self._worth)):
            self._read(trial)
        return ruined

    def close(self, trial: int, kept: bool) -> None:
        """Decide an edit; a kept one becomes part of the level."""
        index = self._edits[trial]
        self._seen = self._seen + self._parts.pop(trial, 0.0)
        if kept:
            self.mean[:, _LEVEL] += self.mean[:, index]
            self.covariance[:, _LEVEL, :] += self.covariance[:, index, :]
            self.covariance[:, :, _LEVEL] += self.covariance[:, :, index]
        self._remove(index)
        del self._edits[trial], self._stand_in[trial]
        self._worth.pop(trial, None)
        self._wide.discard(trial)

    def forget_seeds(self, kept: Collection[int]) -> None:
        """Drop the effects of seeds that will not run again."""
        for seed in [seed for seed in self._seeds if seed not in kept]:
            self._remove(self._seeds.pop(seed))

    # what is known

    def worth(self, trial: int) -> Worth:
        """The posterior of an undecided edit after the last run."""
        return self._worth[trial]

    def mixture(self) -> Array:
        """The weights of the prior now, by all edits seen (empirical Bayes)."""
        weights = PRIOR_EDITS * _PRIOR + self._seen + sum(self._parts.values())
        return np.asarray(weights / weights.sum())

    def weights(self) -> Array:
        """Of the filters."""
        weights = np.exp(self._logs - self._logs.max()).sum(axis=1)
        return np.asarray(weights / weights.sum())

    @property
    def shared(self) -> float:
        """Correlation of runs under equal seeds."""
        return float(self.weights() @ self._rho)

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
        level = [_LEVEL, *([self._seeds[seed]] if seed in self._seeds else [])]
        pick = np.zeros((1 + len(edits), self.mean.shape[1]))
        pick[0, level] = 1.0
        pick[range(1, 1 + len(edits)), [self._edits[trial] for trial in edits]] = 1.0
        weights = self.weights()
        found = pick @ np.tensordot(weights, self.covariance, axes=1) @ pick.T
        for carried in pending:
            row = np.array([1.0, *(float(trial in carried) for trial in edits)])
            column = found @ row
            found = found - np.outer(column, column) / (row @ column + 1 - float(weights @ self._rho))
        return np.asarray(found)

    # the filter

    def _step(self) -> None:
        """One run later: the level moves by its slope and its random walk."""
        self.mean[:, _LEVEL] += self.mean[:, _SLOPE]
        self.covariance[:, _LEVEL, :] += self.covariance[:, _SLOPE, :]
        self.covariance[:, :, _LEVEL] += self.covariance[:, :, _SLOPE]
        self.covariance[:, _LEVEL, _LEVEL] += WALK**2

    def _predict(self, row: list[int], more: Array) -> tuple[Array, Array]:
        """Covariance of the state with a run's prediction (K x n), and the variance of the prediction error (K)."""
        gain = self.covariance[:, :, row].sum(axis=2)
        return gain, gain[:, row].sum(axis=1) + 1 - self._rho + more

    def _learn(self, error: Array, variance: Array, new: int | None) -> None:
        """Weigh standard deviations and correlations by how well they predicted a run."""
        junk, squares = JUNK / self._spread, self._grid**2
        if new is None:
            self._logs += np.log(_density(error[:, None], squares * variance[:, None]) + junk)
            return
        mean, before = self._stand_in[new]
        rest = np.maximum(variance - before, 1 - self._rho)[:, None, None]
        miss = (error + mean)[:, None, None] - _MEANS * self._grid[:, None]
        found = _density(miss, squares[:, None] * (rest + _VARIANCES)) @ self.mixture()
        self._logs += NEW_WEIGHT * np.log(found + junk)

    def _read(self, trial: int) -> None:
        """Take the stand-in out of the filtered Gaussian, put the mixture in, and average over the filters."""
        index, weights, sigma2 = self._edits[trial], self.weights(), self._sigma2()
        variance = np.maximum(self.covariance[:, index, index], 1e-9)
        if trial in self._wide:  # the mixture has no loss of this size
            positive = normal_cdf(self.mean[:, index] / np.sqrt(variance * sigma2))
            self._worth[trial] = _worth(float(weights @ positive), weights, self.mean[:, index], variance * sigma2)
            return
        mean, before = self._stand_in[trial]
        data = 1 / np.maximum(1 / variance - 1 / before, 1e-6)
        seen = ((self.mean[:, index] / variance - mean / before) * data)[:, None]
        near, wide, centre = (data * sigma2)[:, None], _VARIANCES * sigma2[:, None], _MEANS * np.sqrt(sigma2)[:, None]
        logs = np.log(self._prior) - ((seen - centre) ** 2 / (wide + near) + np.log(wide + near)) / 2
        parts = np.exp(logs - logs.max(axis=1)[:, None])
        parts = parts / parts.sum(axis=1)[:, None]
        means = np.where(_NOTHING, 0.0, (seen * wide + centre * near) / (wide + near))
        variances = np.where(_NOTHING, 0.0, wide * near / (wide + near))
        positive = normal_cdf(means[:, ~_NOTHING] / np.sqrt(variances[:, ~_NOTHING]))
        gain = (parts * means).sum(axis=1)
        spread = (parts * (variances + means**2)).sum(axis=1) - gain**2
        self._parts[trial] = weights @ parts
        self._worth[trial] = _worth(
            float(weights @ (parts[:, ~_NOTHING] * positive).sum(axis=1)), weights, gain, spread
        )

    def _sigma2(self) -> Array:
        """Variance of a run under each filter, averaged over the grid."""
        parts = np.exp(self._logs - self._logs.max(axis=1)[:, None])
        return np.asarray(parts @ self._grid**2 / parts.sum(axis=1))

    def _add(self, mean: Array, variance: Array) -> int:
        count, size = self.mean.shape
        self.mean = np.concatenate([self.mean, mean[:, None]], axis=1)
        covariance = np.zeros((count, size + 1, size + 1))
        covariance[:, :size, :size] = self.covariance
        covariance[:, size, size] = variance
        self.covariance = covariance
        return size

    def _remove(self, index: int) -> None:
        self.mean = np.delete(self.mean, index, axis=1)
        self.covariance = np.delete(np.delete(self.covariance, index, axis=1), index, axis=2)
        for places in (self._seeds, self._edits):
            places.update({name: place - 1 for name, place in places.items() if place > index})


def _worth(probability: float, weights: Array, gain: Array, variance: Array) -> Worth:
    mean = float(weights @ gain)
    return Worth(probability, mean, math.sqrt(max(float(weights @ (variance + gain**2)) - mean**2, 0.0)))


def _density(error: Array, variance: Array) -> Array:
    return np.asarray(np.exp(-(error**2) / variance / 2) / np.sqrt(variance))


@dataclass(frozen=True)
class Undecided:
    """How many runs carried an undecided edit since its first, and how many did not."""

    runs_in: int = 0
    runs_out: int = 0
    nominated: tuple[int, int] | None = None  # ``runs_in`` and ``runs_out`` when it became likely to be a gain

    def marked(self, likely: bool) -> Undecided:
        """The edit once it is likely to be a gain, or no longer."""
        return replace(self, nominated=(self.runs_in, self.runs_out) if likely else None)

    @property
    def ahead(self) -> int:
        """Runs with it more than without it."""
        return self.runs_in - self.runs_out

    def after(self, carried: bool) -> Undecided:
        """The counts after one more run."""
        return replace(self, runs_in=self.runs_in + carried, runs_out=self.runs_out + (not carried))


Step = Literal["keep", "drop", "nominate", "doubt", "wait"]


def decide(edit: Undecided, probability: float, share: float, last: bool = False) -> Step:
    """What an edit has come to after a run.

    Args:
        edit: Its counts.
        probability: That it is a gain.
        share: Of gains among new edits, by the prior as it is now.
        last: Whether no more runs will follow.
    """
    if edit.nominated is None and not (probability > NOMINATE and edit.runs_in >= 2 and edit.runs_out >= 1):
        return "drop" if last or probability < HOPELESS * share else "wait"
    since = edit.nominated or (edit.runs_in, edit.runs_out)
    confirmed = edit.runs_in - since[0] >= PASS_IN and edit.runs_out - since[1] >= PASS_OUT
    if last or confirmed:
        return "keep" if probability > PASS else "drop" if last else "doubt"
    return "wait" if edit.nominated else "nominate"


def new_edits(waiting: int, undecided: int, tried: int, ruined: int) -> int:
    """How many new edits the next run carries.

    Args: edits that wait for a first run; undecided ones that are not nominated; all tried; those that failed or lost
    wildly.
    """
    calm = (2 + ruined) / (10 + tried) <= RUINED
    return min(waiting, 0 if undecided >= MOST_OPEN else 2 if calm and undecided < MOST_FOR_TWO else 1)


def choose(matrix: Array, draw: random.Random, ahead: Sequence[int] = ()) -> list[bool]:
    """Which undecided edits the next run carries: those that tell most.

    Of ``HALVES`` random halves the one with the largest predicted variance, then single flips while it grows.

    Args: ``Weighing.variances`` of the edits; for the halves; runs with each edit more than without it.
    """
    count = len(matrix) - 1
    if 0 < count < FEW and any(more > MOST_AHEAD for more in ahead):
        return [more <= MOST_AHEAD for more in ahead]
    rows = np.array([[1.0, *(float(draw.random() < 0.5) for _ in range(count))] for _ in range(HALVES)])
    best = rows[int(np.argmax(np.einsum("ri,ij,rj->r", rows, matrix, rows)))]
    for _ in range(FLIPS):
        grows = np.where(best > 0, -2.0, 2.0) * (matrix @ best) + np.diag(matrix)
        grows[0] = -1.0
        at = int(np.argmax(grows))
        if grows[at] <= 1e-9:
            break
        best[at] = 1.0 - best[at]
    return [bool(inside) for inside in best[1:]]
