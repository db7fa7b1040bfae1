"""What the runs of a session say about the edits under test: the model of policy ``confirm``.

A run of a commit under a seed is modelled as

    z = level + effect of the seed + effect of the edit under test that the commit carries + noise

where z is minus the value if lower values are better, so that effects are gains. Commits share the effect of a seed. If
seeds move all commits alike, differences under equal seeds (paired runs) are nearly free of noise. If they do not, the
same equations compare means. How much is shared is unknown: ``Belief`` holds one filter for each combination of
standard deviation and correlation, weighted by how well it predicted the runs (Bayesian model averaging).

An edit may draw other random numbers than its parent. Its runs then have seed effects of their own. While an edit is
open, every filter exists twice: with the edit sharing the effects of seeds, and without. If an edit without is kept,
its seed effects become those of the incumbent.

Sources:
    J. A. Hoeting et al., Bayesian model averaging: a tutorial, Statistical Science 14(4), 1999.
    P. Glasserman, D. D. Yao, Some guidelines and guarantees for common random numbers, Management Science 38(6), 1992.
    H. A. P. Blom, Y. Bar-Shalom, The interacting multiple model algorithm, IEEE Trans. Automatic Control 33(8), 1988.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

import numpy as np

from agent.judge.effects import Effects, Posterior, Worth, moments, normal_cdf
from agent.judge.filters import LEVEL, Array, EditEffect, Filters, SeedEffect
from agent.judge.noise import calibrated
from agent.judge.sharing import SHARES, InitialWeights, Sharing

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


@dataclass(frozen=True)
class Estimate(Worth):
    """What is known of an open edit, and of the next."""

    promise: float  # expected gain if the edit were kept exactly when it is a gain
    promise_of_new: float  # the same for an edit that has not run yet
    shares: float = 1.0  # probability that the edit shares the effects of seeds


@dataclass
class _Open:
    """An edit under test."""

    weights: InitialWeights
    priors: tuple[float, ...]  # of each of SHARES
    has_run: bool = False
    wild: bool = False  # it had a wild loss


class Belief:
    """The filters of one session and one type of device."""

    def __init__(self, calibration: Sequence[tuple[int, float]]) -> None:
        """Start from two or more runs of the baseline, (seed, z). Errors: see ``calibrated``."""
        values, spread = calibrated(calibration)
        noises = [(scale * spread, rho) for scale in SCALES for rho in CORRELATIONS]
        self._sds, self._correlations = (np.array(column) for column in zip(*noises, strict=True))
        self._blocks: list[dict[int, int]] = [{}]  # of filters: the index into SHARES for each open trial
        self._open: dict[int, _Open] = {}
        self._effects, self._sharing = Effects(), Sharing()
        self._set_noise()
        sd = self._sd
        self._filters = Filters(fmean(values), (WIDE * sd) ** 2, (SLOPE * sd) ** 2)
        for seed, z in calibration:
            self.observe(seed, z)
        # (n - 1) s^2 / sd^2 is chi-squared; the prior of log sd is flat. This replaces the predictions above.
        self._filters.log_weights = -(len(values) - 1) * (np.log(sd) + (spread / sd) ** 2 / 2)

    # the life of an edit

    def open(self, trial: int, weights: InitialWeights = "unknown") -> None:
        """Add the effect of a new edit.

        Args:
            weights: Whether its initial weights are those of its parent under the same seed.
        """
        priors = self._sharing.priors(weights)
        self._filters.fork(priors)
        self._blocks = [{**block, trial: share} for share in range(len(SHARES)) for block in self._blocks]
        self._set_noise()
        self._filters.add_edit(EditEffect(trial), *self._effects.moments(self._sd))
        self._open[trial] = _Open(weights, priors)
        if len(self._blocks) > MOST_BLOCKS:
            total = self._weights().reshape(len(self._blocks), -1).sum(axis=1)
            likely = sorted(np.argsort(-total, kind="stable")[:MOST_BLOCKS])
            self._filters.select(likely)
            self._blocks = [self._blocks[block] for block in likely]
            self._set_noise()

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
        filters.step((WALK * sd) ** 2)
        filters.add(SeedEffect(seed), self._shared)
        edit = None if trial is None else self._open[trial]
        if trial is not None:
            filters.add(SeedEffect(seed, trial), self._shared)
        row = self._row(seed, trial)
        error = np.clip(z + offset - (filters.mean * row).sum(axis=1), -MOST * sd, MOST * sd)
        noise = self._own + spread**2
        column, variance = filters.predict(row)
        variance = variance + noise
        outlier = error**2 > WILD**2 * variance
        loss = (error < 0) & outlier
        huge = outlier & (error > HUGE * np.maximum(sd, np.sqrt(variance))) & bool(edit and edit.has_run)
        first = edit is not None and not edit.has_run
        filters.log_weights = filters.log_weights - UNLIKELY * (outlier & ~loss if first else outlier & ~huge)
        if edit and trial is not None and (loss | huge).any():
            # it is the edit's: widen its prior first, or level and seed would move
            filters.widen(EditEffect(trial), np.where(loss | huge, error**2, 0.0))
            if float(self._weights() @ (loss | huge)) > 0.5:  # not only for filters that think the noise too small
                edit.wild = True
            column, variance = filters.predict(row)
            variance = variance + noise
        variance = np.maximum(variance, error**2 / WILD**2)  # any other outlier counts for less
        filters.log_weights = filters.log_weights - (np.log(variance) + error**2 / variance) / 2
        filters.update(column, error, variance)
        if edit:
            edit.has_run = True

    def close(self, trial: int, kept: bool) -> None:
        """Decide an edit; a kept one becomes part of the level. Its mixture enters by its first two moments."""
        filters, edit, name = self._filters, self._open[trial], EditEffect(trial)
        if not edit.wild:  # a wild loss is outside the mixture, and says nothing about other edits
            found, weights = self._posterior(trial), self._weights()
            self._effects.learn(weights @ found.parts)
            self._sharing.learn(edit.weights, np.log(self._by_share(trial, weights) / edit.priors))
            filters.log_weights = filters.log_weights + found.evidence
            (mean, before), column = filters.marginal(name), filters.covariance[:, :, filters.index[name]]
            change = (found.variance - before) / before**2
            filters.mean = filters.mean + column * ((found.gain - mean) / before)[:, None]
            filters.covariance = filters.covariance + column[:, :, None] * column[:, None, :] * change[:, None, None]
        if kept:
            self._move(trial)
        del self._open[trial]
        filters.remove([effect for effect in filters.index if effect.trial == trial])
        self._merge(trial)

    def shift(self, gain: float, se: float) -> None:
        """The incumbent gained what another type of device has measured."""
        self._filters.mean[:, LEVEL] += gain
        self._filters.covariance[:, LEVEL, LEVEL] += se**2

    def forget_seeds(self, kept: Collection[int]) -> None:
        """Drop the effects of seeds that will not run again, so that the state stays small."""
        seeds = [name for name in self._filters.index if isinstance(name, SeedEffect) and name.trial is None]
        self._filters.remove([name for name in seeds if name.seed not in kept])

    # what is known

    def estimate(self, trial: int) -> Estimate:
        """The posterior of an open edit, averaged over the filters."""
        found, weights = self._posterior(trial), self._weights()
        return Estimate(
            float(weights @ found.probability),
            *moments(weights, found.gain, found.variance),
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
        weights, known = self._weights() / self._sd**2, self._filters.index
        shared, own, apart = self._shared, self._own, 1 - self._share(trial) ** 2
        falls = []
        for seed, carries in runs:
            column, variance = self._filters.predict(self._row(seed, trial if carries else None))
            variance = variance + own
            if SeedEffect(seed) not in known:
                variance = variance + shared
            elif carries and SeedEffect(seed, trial) not in known:
                variance = variance + apart * shared
            falls.append(float(weights @ (column[:, known[EditEffect(trial)]] ** 2 / variance)))
        return falls

    @property
    def noise(self) -> float:
        """Standard deviation of a run, averaged over the filters."""
        return float(self._weights() @ self._sd)

    # what each filter assumes

    def _set_noise(self) -> None:
        """Standard deviation of a run, and its variance: what runs under one seed share, and what is a run's own."""
        sd, rho = (np.tile(values, len(self._blocks)) for values in (self._sds, self._correlations))
        self._sd, self._shared, self._own = sd, sd**2 * rho, sd**2 * (1 - rho)

    def _share(self, trial: int) -> Array:
        return np.repeat([SHARES[block[trial]] for block in self._blocks], len(self._sds))

    def _row(self, seed: int, trial: int | None) -> Array:
        """Coefficients of the state in a run (F x n); effects that are not in the state yet are left out."""
        row, index = np.zeros_like(self._filters.mean), self._filters.index
        row[:, LEVEL] = 1.0
        share = 1.0 if trial is None else self._share(trial)
        if (name := SeedEffect(seed)) in index:
            row[:, index[name]] = share
        if trial is not None:
            row[:, index[EditEffect(trial)]] = 1.0
            if (name := SeedEffect(seed, trial)) in index:
                row[:, index[name]] = np.sqrt(1 - share**2)
        return row

    # the end of an edit

    def _move(self, trial: int) -> None:
        """The edit is kept: its effect joins the level, its effects of seeds become those of the incumbent."""
        filters, share = self._filters, self._share(trial)
        matrix = np.zeros_like(filters.covariance) + np.eye(filters.mean.shape[1])
        matrix[:, LEVEL, filters.index[EditEffect(trial)]] = 1.0
        unknown = []  # effects of seeds that the edit has not run
        for name, at in filters.index.items():
            if isinstance(name, SeedEffect) and name.trial is None:
                matrix[:, at, at] = share
                if (own := filters.index.get(SeedEffect(name.seed, trial))) is None:
                    unknown.append(at)
                else:
                    matrix[:, at, own] = np.sqrt(1 - share**2)
        filters.mean = (matrix @ filters.mean[:, :, None])[:, :, 0]
        filters.covariance = matrix @ filters.covariance @ matrix.transpose(0, 2, 1)
        for at in unknown:
            filters.covariance[:, at, at] += (1 - share**2) * self._shared

    def _merge(self, trial: int) -> None:
        """Join the filters that differ in the share of this trial alone."""
        groups: dict[tuple[tuple[int, int], ...], list[int]] = {}
        for place, block in enumerate(self._blocks):
            del block[trial]
            groups.setdefault(tuple(block.items()), []).append(place)
        self._filters.merge(list(groups.values()))
        self._blocks = [dict(key) for key in groups]
        self._set_noise()

    # mixture and weights

    def _weights(self) -> Array:
        """Of the filters: evidence of the runs, with the mixture in place of the stand-in for every open edit."""
        total = self._filters.log_weights.copy()
        for trial, edit in self._open.items():
            if not edit.wild:
                total += self._posterior(trial).evidence
        weights = np.exp(total - total.max())
        return np.asarray(weights / weights.sum())

    def _by_share(self, trial: int, weights: Array) -> Array:
        """Sums of the weights of the filters by what they assume of the trial."""
        by_block = weights.reshape(len(self._blocks), -1).sum(axis=1)
        shares = [block[trial] for block in self._blocks]
        return np.maximum(np.bincount(shares, by_block, len(SHARES)), 1e-300)

    def _posterior(self, trial: int) -> Posterior:
        """Put the mixture in the place of its stand-in; ``evidence`` is relative to that of the stand-in."""
        name, sd = EditEffect(trial), self._sd
        seen, error = self._filters.measured(name, 1e-12 * sd**2, 1e-9 / sd**2)
        found = self._effects.posterior(sd, seen, error)
        if self._open[trial].wild:  # the mixture has no loss of this size
            mean, variance = self._filters.marginal(name)
            positive = normal_cdf(mean / np.sqrt(variance))
            return replace(found, probability=positive, gain=mean, variance=variance, promise=np.zeros_like(mean))
        mean, wide = self._filters.stand_ins[name]
        total = wide + error
        return replace(found, evidence=found.evidence + ((seen - mean) ** 2 / total + np.log(total)) / 2)
