"""What the runs of a session say about the edits under test: one linear model, read by Kalman filters.

A run of a commit under a seed is modelled as

    z = level + effect of the seed + effect of the undecided edit that the commit carries + noise

where z is minus the value if lower values are better, so that effects are gains. Commits share the effect of a seed. If
seeds move all commits alike, differences under equal seeds (paired runs) are nearly free of noise. If they do not, the
same equations compare means. How much is shared is unknown: ``Belief`` holds one filter for each combination of
standard deviation and correlation, weighted by how well it predicted the runs (Bayesian model averaging).

An edit may draw other random numbers than its parent. Its runs then have seed effects of their own. While an edit is
open, every filter exists twice: with the edit sharing the effects of seeds, and without. If an edit without is kept,
its seed effects become those of the incumbent.

The level follows a random walk with a slope, since machines drift.

Sources:
    J. A. Hoeting et al., Bayesian model averaging: a tutorial, Statistical Science 14(4), 1999.
    P. Glasserman, D. D. Yao, Some guidelines and guarantees for common random numbers, Management Science 38(6), 1992.
    H. A. P. Blom, Y. Bar-Shalom, The interacting multiple model algorithm, IEEE Trans. Automatic Control 33(8), 1988.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from statistics import fmean

import numpy as np

from agent.judge.effects import Effects, Posterior, normal_cdf
from agent.judge.filters import Array, Filters
from agent.judge.noise import calibrated
from agent.judge.sharing import SHARES, Sharing, Weights

CORRELATIONS = (0.0, 0.3, 0.6, 0.8, 0.9, 0.95, 0.98)  # between runs of two commits under one seed
SCALES = (0.5, 0.65, 0.85, 1.1, 1.4, 1.9, 2.6)  # standard deviation of a run over that of the calibration runs

WALK = 0.02  # standard deviation of the level's random walk per run, in standard deviations of a run
SLOPE = 0.01  # prior standard deviation of the level's slope per run, in the same unit
WIDE = 5.0  # prior standard deviation of the first level, in the same unit
WILD = 3.0  # standard deviations beyond which an innovation counts as an outlier
UNLIKELY = 3.0  # log odds against an outlier, other than a loss in the first run of an edit
HUGE = 6.0  # the same, also in those of a run, for a gain that repeats: only the edit can explain it
MOST = 50.0  # standard deviations of a run at which an innovation is cut: a larger one says no more
MOST_BLOCKS = 8  # of filters: with more edits open at a time, the least likely combinations of shares are dropped

_LEVEL, _SLOPE = 0, 1  # indices into the state


@dataclass(frozen=True)
class Estimate:
    """What is known of one edit. Gains are in units of the metric; positive is better."""

    probability: float  # that the edit is a gain
    gain: float  # posterior mean
    se: float  # posterior standard deviation
    promise: float  # expected gain if the edit were kept exactly when it is a gain
    promise_of_new: float  # the same for an edit that has not run yet
    shares: float = 1.0  # probability that the edit shares the effects of seeds


@dataclass
class _Open:
    """An edit under test."""

    index: int  # of its effect in the state
    mean: Array  # of the Gaussian that stands in for the mixture, by filter
    variance: Array
    weights: Weights
    priors: tuple[float, ...]  # of each of SHARES
    own: dict[int, int] = field(default_factory=dict)  # seed: index of the edit's own effect of the seed
    wild: bool = False  # it had a wild loss


class Belief:
    """The filters of one session and one type of device.

    The state is [level, slope, effects of seeds, effects of open edits, open edits' own effects of seeds].
    """

    def __init__(self, calibration: Sequence[tuple[int, float]]) -> None:
        """Start from runs of the baseline.

        Args:
            calibration: (seed, z) of two or more runs that differ.

        Raises:
            ValueError: The runs do not vary, or there are fewer than two.
        """
        values, spread = calibrated(calibration)
        noises = [(scale * spread, rho) for scale in SCALES for rho in CORRELATIONS]
        self._sds, self._correlations = (np.array(column) for column in zip(*noises, strict=True))
        self._filters = Filters(len(noises))
        self._blocks: list[dict[int, int]] = [{}]  # of filters: the index into SHARES for each open trial
        self._seeds: dict[int, int] = {}  # seed: index of its effect in the state
        self._open: dict[int, _Open] = {}
        self._effects, self._sharing = Effects(), Sharing()
        sd = self._sd
        self._filters.add(np.full(len(sd), fmean(values)), (WIDE * sd) ** 2)
        self._filters.add(np.zeros(len(sd)), (SLOPE * sd) ** 2)
        for seed, z in calibration:
            self.observe(seed, z)
        # (n - 1) s^2 / sd^2 is chi-squared; the prior of log sd is flat. This replaces the predictions above.
        self._filters.log_weights = -(len(values) - 1) * (np.log(sd) + (spread / sd) ** 2 / 2)

    # the life of an edit

    def open(self, trial: int, weights: Weights = "unknown") -> None:
        """Add the effect of a new edit. A Gaussian with the mixture's moments stands in for the mixture.

        Args:
            weights: Whether its initial weights are those of its parent under the same seed.
        """
        priors = self._sharing.priors(weights)
        self._filters.fork(priors)
        for other in self._open.values():
            other.mean, other.variance = np.tile(other.mean, len(SHARES)), np.tile(other.variance, len(SHARES))
        self._blocks = [{**block, trial: share} for share in range(len(SHARES)) for block in self._blocks]
        mean, variance = self._effects.moments(self._sd)
        self._open[trial] = _Open(self._filters.add(mean, variance), mean, variance, weights, priors)
        if len(self._blocks) > MOST_BLOCKS:
            total = self._weights().reshape(len(self._blocks), -1).sum(axis=1)
            self._select(sorted(np.argsort(-total, kind="stable")[:MOST_BLOCKS]))

    def observe(self, seed: int, z: float, trial: int | None = None, offset: float = 0.0, spread: float = 0.0) -> None:
        """Read one run.

        Args:
            seed: Of the run.
            z: Minus the value where lower is better, else the value.
            trial: The open trial whose edit the commit carries; None: a run of the incumbent.
            offset: Gains that the incumbent has over the commit's base, for a run begun before the head moved.
            spread: Standard error of ``offset``.
        """
        filters, sd = self._filters, self._sd
        self._step()
        if seed not in self._seeds:
            self._seeds[seed] = filters.add(np.zeros(len(sd)), self._shared)
        edit = None if trial is None else self._open[trial]
        first = edit is not None and not edit.own
        if edit and seed not in edit.own:
            edit.own[seed] = filters.add(np.zeros(len(sd)), self._shared)
        row = self._row(seed, trial)
        error = np.clip(z + offset - (filters.mean * row).sum(axis=1), -MOST * sd, MOST * sd)
        noise = self._own + spread**2
        column, variance = filters.predict(row)
        variance = variance + noise
        outlier = error**2 > WILD**2 * variance
        loss = (error < 0) & outlier
        repeated = edit is not None and not first
        huge = repeated & (error > HUGE * np.maximum(sd, np.sqrt(variance)))
        filters.log_weights = filters.log_weights - UNLIKELY * (outlier & ~loss if first else outlier & ~huge)
        if edit and (loss | huge).any():  # it is the edit's: widen its prior first, or level and seed would move
            more = np.where(loss | huge, error**2, 0.0)
            filters.covariance[:, edit.index, edit.index] += more
            edit.variance = edit.variance + more
            if float(self._weights() @ (loss | huge)) > 0.5:  # not only for filters that think the noise too small
                edit.wild = True
            column, variance = filters.predict(row)
            variance = variance + noise
        variance = np.maximum(variance, error**2 / WILD**2)  # any other outlier counts for less
        filters.update(column, error, variance)

    def close(self, trial: int, kept: bool) -> None:
        """Decide an edit; a kept one becomes part of the level. Its mixture enters by its first two moments."""
        filters, edit = self._filters, self._open[trial]
        if not edit.wild:  # a wild loss is outside the mixture, and says nothing about other edits
            found = self._posterior(edit)
            weights = self._weights({trial: found})
            self._effects.learn(weights @ found.components)
            self._sharing.learn(edit.weights, np.log(self._by_share(trial, weights) / edit.priors))
            filters.log_weights = filters.log_weights + self._correction(edit, found)
            before, column = filters.covariance[:, edit.index, edit.index], filters.covariance[:, :, edit.index]
            filters.mean = filters.mean + column * ((found.gain - filters.mean[:, edit.index]) / before)[:, None]
            change = (found.variance - before) / before**2
            filters.covariance = filters.covariance + column[:, :, None] * column[:, None, :] * change[:, None, None]
        if kept:
            self._move(trial)
        del self._open[trial]
        self._remove({edit.index, *edit.own.values()})
        self._merge(trial)

    def shift(self, gain: float, se: float) -> None:
        """The incumbent gained what another type of device has measured."""
        self._filters.mean[:, _LEVEL] += gain
        self._filters.covariance[:, _LEVEL, _LEVEL] += se**2

    def forget_seeds(self, kept: Collection[int]) -> None:
        """Drop the effects of seeds that will not run again, so that the state stays small."""
        self._remove({self._seeds.pop(seed) for seed in list(self._seeds) if seed not in kept})

    # what is known

    def estimate(self, trial: int) -> Estimate:
        """The posterior of an open edit, averaged over the filters."""
        found = self._posterior(self._open[trial])
        weights = self._weights({trial: found})
        gain = float(weights @ found.gain)
        variance = float(weights @ (found.variance + found.gain**2)) - gain**2
        return Estimate(
            probability=float(weights @ found.probability),
            gain=gain,
            se=math.sqrt(max(variance, 0.0)),
            promise=float(weights @ found.promise),
            promise_of_new=float(weights @ self._effects.promise(self._sd)),
            shares=float(self._by_share(trial, weights) @ SHARES),
        )

    def information(self, trial: int, runs: Sequence[tuple[int, bool]]) -> list[float]:
        """Expected fall of the variance of an edit's effect, in variances of a run, by one more run.

        Args:
            trial: The open edit.
            runs: Seed of each run that could be next, and whether it is of the candidate; else of the incumbent.
        """
        edit, weights = self._open[trial], self._weights() / self._sd**2
        shared, own, apart = self._shared, self._own, 1 - self._share(trial) ** 2
        falls = []
        for seed, carries in runs:
            column, variance = self._filters.predict(self._row(seed, trial if carries else None))
            variance = variance + own
            if seed not in self._seeds:
                variance = variance + shared
            elif carries and seed not in edit.own:
                variance = variance + apart * shared
            falls.append(float(weights @ (column[:, edit.index] ** 2 / variance)))
        return falls

    @property
    def noise(self) -> float:
        """Standard deviation of a run, averaged over the filters."""
        return float(self._weights() @ self._sd)

    @property
    def shared(self) -> float:
        """Correlation of runs under equal seeds, averaged over the filters."""
        return float(self._weights() @ np.tile(self._correlations, len(self._blocks)))

    @property
    def level(self) -> tuple[float, float]:
        """z of the incumbent now, and its standard error."""
        weights, filters = self._weights(), self._filters
        mean = float(weights @ filters.mean[:, _LEVEL])
        second = float(weights @ (filters.covariance[:, _LEVEL, _LEVEL] + filters.mean[:, _LEVEL] ** 2))
        return mean, math.sqrt(max(second - mean**2, 0.0))

    # the noise that each filter assumes

    @property
    def _sd(self) -> Array:
        return np.tile(self._sds, len(self._blocks))

    @property
    def _shared(self) -> Array:
        """Variance of the effects of seeds."""
        return np.tile(self._sds**2 * self._correlations, len(self._blocks))

    @property
    def _own(self) -> Array:
        """Variance of a run that no other run shares."""
        return np.tile(self._sds**2 * (1 - self._correlations), len(self._blocks))

    def _share(self, trial: int) -> Array:
        return np.repeat([SHARES[block[trial]] for block in self._blocks], len(self._sds))

    # the filter

    def _step(self) -> None:
        """One run later: the level moves by its slope and its random walk."""
        mean, covariance = self._filters.mean, self._filters.covariance
        mean[:, _LEVEL] += mean[:, _SLOPE]
        covariance[:, _LEVEL, :] += covariance[:, _SLOPE, :]
        covariance[:, :, _LEVEL] += covariance[:, :, _SLOPE]
        covariance[:, _LEVEL, _LEVEL] += (WALK * self._sd) ** 2

    def _row(self, seed: int, trial: int | None) -> Array:
        """Coefficients of the state in a run (F x n); effects that are not in the state yet are left out."""
        row = np.zeros_like(self._filters.mean)
        row[:, _LEVEL] = 1.0
        share = 1.0 if trial is None else self._share(trial)
        if seed in self._seeds:
            row[:, self._seeds[seed]] = share
        if trial is not None:
            edit = self._open[trial]
            row[:, edit.index] = 1.0
            if seed in edit.own:
                row[:, edit.own[seed]] = np.sqrt(1 - share**2)
        return row

    def _move(self, trial: int) -> None:
        """The edit is kept: its effect joins the level, its effects of seeds become those of the incumbent."""
        filters, edit, share = self._filters, self._open[trial], self._share(trial)
        matrix = np.zeros_like(filters.covariance) + np.eye(filters.mean.shape[1])
        matrix[:, _LEVEL, edit.index] = 1.0
        for seed, index in self._seeds.items():
            matrix[:, index, index] = share
            if seed in edit.own:
                matrix[:, index, edit.own[seed]] = np.sqrt(1 - share**2)
        filters.transform(matrix)
        for seed, index in self._seeds.items():
            if seed not in edit.own:
                filters.covariance[:, index, index] += (1 - share**2) * self._shared

    def _remove(self, indices: Collection[int]) -> None:
        """Take variables out of the state; nothing may name them any more."""
        self._filters.remove(indices)

        def place(index: int) -> int:
            return index - sum(gone < index for gone in indices)

        self._seeds = {seed: place(index) for seed, index in self._seeds.items()}
        for edit in self._open.values():
            edit.index = place(edit.index)
            edit.own = {seed: place(index) for seed, index in edit.own.items()}

    def _merge(self, trial: int) -> None:
        """Join the filters that differ in the share of this trial alone."""
        groups: dict[tuple[tuple[int, int], ...], list[int]] = {}
        for place, block in enumerate(self._blocks):
            del block[trial]
            groups.setdefault(tuple(block.items()), []).append(place)
        self._filters.merge(list(groups.values()))
        self._blocks = [dict(key) for key in groups]
        for edit in self._open.values():
            for name in ("mean", "variance"):  # differs after a wild loss only
                blocks = getattr(edit, name).reshape(-1, len(self._sds))
                setattr(edit, name, np.concatenate([blocks[group].mean(axis=0) for group in groups.values()]))

    def _select(self, blocks: Sequence[int]) -> None:
        self._filters.select(blocks)
        places = self._filters.places(blocks)
        self._blocks = [self._blocks[block] for block in blocks]
        for edit in self._open.values():
            edit.mean, edit.variance = edit.mean[places], edit.variance[places]

    # mixture and weights

    def _weights(self, known: dict[int, Posterior] | None = None) -> Array:
        """Of the filters: evidence of the runs, with the mixture in place of the stand-in for every open edit."""
        total = self._filters.log_weights.copy()
        for trial, edit in self._open.items():
            if not edit.wild:
                found = known[trial] if known and trial in known else self._posterior(edit)
                total += self._correction(edit, found)
        weights = np.exp(total - total.max())
        return np.asarray(weights / weights.sum())

    def _by_share(self, trial: int, weights: Array) -> Array:
        """Sums of the weights of the filters by what they assume of the trial."""
        by_block = weights.reshape(len(self._blocks), -1).sum(axis=1)
        shares = [block[trial] for block in self._blocks]
        return np.maximum(np.bincount(shares, by_block, len(SHARES)), 1e-300)

    def _seen(self, edit: _Open) -> tuple[Array, Array]:
        """The effect as the runs alone measure it, and the variance of its error: without the stand-in."""
        filters, sd = self._filters, self._sd
        variance = np.maximum(filters.covariance[:, edit.index, edit.index], 1e-12 * sd**2)
        data = 1 / np.maximum(1 / variance - 1 / edit.variance, 1e-9 / sd**2)
        return (filters.mean[:, edit.index] / variance - edit.mean / edit.variance) * data, data

    def _posterior(self, edit: _Open) -> Posterior:
        """Take the stand-in out of the filtered Gaussian, and put the mixture in."""
        found = self._effects.posterior(self._sd, *self._seen(edit))
        if not edit.wild:
            return found
        mean = self._filters.mean[:, edit.index]  # the mixture has no loss of this size
        variance = self._filters.covariance[:, edit.index, edit.index]
        none = np.zeros_like(mean)
        return Posterior(normal_cdf(mean / np.sqrt(variance)), mean, variance, none, found.components, none)

    def _correction(self, edit: _Open, found: Posterior) -> Array:
        """Log evidence of the mixture over that of its stand-in."""
        seen, variance = self._seen(edit)
        total = edit.variance + variance
        return np.asarray(found.evidence + ((seen - edit.mean) ** 2 / total + np.log(total)) / 2)
