"""What the runs of a session say about the edits under test: one linear model, read by Kalman filters.

A run of a commit under a seed is modelled as

    z = level + effect of the seed + effects of the undecided edits that the commit carries + noise

where z is minus the value if lower values are better, so that effects are gains. All commits share the effect of a
seed. If seeds move all commits alike, differences under equal seeds (paired runs) are nearly free of noise. If they do
not, the same equations compare means. How much is shared is unknown: ``Belief`` holds one filter for each combination
of standard deviation and correlation, weighted by how well it predicted the runs (Bayesian model averaging).

The level follows a random walk with a slope, since machines drift. The prior of an effect is a mixture: gains and
losses of seven sizes, and exactly nothing. Its weights follow the effects seen in the session (empirical Bayes).

Sources:
    R. E. Kalman, A new approach to linear filtering and prediction problems, 1960.
    J. A. Hoeting et al., Bayesian model averaging: a tutorial, Statistical Science 14(4), 1999.
    P. Glasserman, D. D. Yao, Some guidelines and guarantees for common random numbers, Management Science 38(6), 1992.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

CORRELATIONS = (0.0, 0.3, 0.6, 0.8, 0.9, 0.95, 0.98)  # between runs of two commits under one seed
SCALES = (0.55, 0.7, 0.85, 1.0, 1.2, 1.45, 1.8)  # standard deviation of a run over that of the calibration runs

SIZES = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)  # of effects, in standard deviations of a run
GAINS = (0.0064, 0.008, 0.016, 0.02, 0.016, 0.0096, 0.004)  # prior weight of a gain of each size
LOSSES = (0.026, 0.0416, 0.0624, 0.104, 0.1144, 0.104, 0.0676)
NOTHING = 0.4
SPREAD = 0.4  # standard deviation of a mixture component over its size
PRIOR_EDITS = 20.0  # the prior weights count for as much as this many edits seen

WALK = 0.02  # standard deviation of the level's random walk per run, in standard deviations of a run
SLOPE = 0.01  # prior standard deviation of the level's slope per run, in the same unit
WIDE = 5.0  # prior standard deviation of the first level, in the same unit
WILD = 3.0  # standard deviations beyond which an innovation counts as an outlier
MOST = 50.0  # standard deviations of a run at which an innovation is cut: a larger one says no more

_MEANS = np.array([*SIZES, *(-size for size in SIZES), 0.0])  # the last component is "nothing"
_WEIGHTS = np.array([*GAINS, *LOSSES, NOTHING]) / sum((*GAINS, *LOSSES, NOTHING))
_LEVEL, _SLOPE = 0, 1  # indices into the state


@dataclass(frozen=True)
class Estimate:
    """What is known of one edit. Gains are in units of the metric; positive is better."""

    probability: float  # that the edit is a gain
    gain: float  # posterior mean
    se: float  # posterior standard deviation
    promise: float  # expected gain if the edit were kept exactly when it is a gain
    promise_of_new: float  # the same for an edit that has not run yet


@dataclass(frozen=True)
class _Posterior:
    """Of one edit under each of the K filters."""

    probability: Array
    gain: Array
    variance: Array
    promise: Array
    components: Array  # K x C, responsibilities of the mixture's components
    correction: Array  # log evidence of the mixture over that of its Gaussian stand-in


class Belief:
    """The filters of one session and one type of device.

    ``mean`` (K x n) and ``covariance`` (K x n x n) are over [level, slope, effects of seeds, effects of open edits].
    """

    def __init__(self, calibration: Sequence[tuple[int, float]]) -> None:
        """Start from runs of the baseline.

        Args:
            calibration: (seed, z) of two or more runs that differ.

        Raises:
            ValueError: The runs do not vary, or there are fewer than two.
        """
        values = [z for _, z in calibration]
        spread = stdev(values) if len(values) > 1 else 0.0
        if not spread > 0:
            raise ValueError("the noise cannot be estimated: fewer than two calibration runs, or all of them equal")
        pairs = [(scale * spread, rho) for scale in SCALES for rho in CORRELATIONS]
        self.sd = np.array([sd for sd, _ in pairs])
        self.correlation = np.array([rho for _, rho in pairs])
        self._own = self.sd**2 * (1 - self.correlation)  # variance of a run that other commits do not share
        self._shared = self.sd**2 * self.correlation
        self._effects = _MEANS * self.sd[:, None]
        self._spreads = np.maximum((SPREAD * self._effects) ** 2, 1e-12 * self.sd[:, None] ** 2)
        self.mean = np.zeros((len(pairs), 2))
        self.mean[:, _LEVEL] = fmean(values)
        self.covariance = np.zeros((len(pairs), 2, 2))
        self.covariance[:, _LEVEL, _LEVEL] = (WIDE * self.sd) ** 2
        self.covariance[:, _SLOPE, _SLOPE] = (SLOPE * self.sd) ** 2
        self._seeds: dict[int, int] = {}  # seed: index of its effect in the state
        self._edits: dict[int, int] = {}  # trial: index of its effect in the state
        self._stand_in: dict[int, tuple[Array, Array]] = {}  # trial: mean and variance of the Gaussian that stands in
        self._wild: set[int] = set()  # open trials with a wild loss
        self._seen = np.zeros(len(_MEANS))
        self._log_weights = np.zeros(len(pairs))
        for seed, z in calibration:
            self.observe(seed, z)
        # (n - 1) s^2 / sd^2 is chi-squared; the prior of log sd is flat. This replaces the predictions above.
        self._log_weights = -(len(values) - 1) * (np.log(self.sd) + (spread / self.sd) ** 2 / 2)

    # the life of an edit

    def open(self, trial: int) -> None:
        """Add the effect of a new edit. A Gaussian with the mixture's moments stands in for the mixture."""
        weights = self._mixture()
        mean = self._effects @ weights
        variance = (self._effects**2 + self._spreads) @ weights - mean**2
        self._stand_in[trial] = (mean, variance)
        self._edits[trial] = self._add(mean, variance)

    def observe(
        self, seed: int, z: float, edits: Collection[int] = (), offset: float = 0.0, spread: float = 0.0
    ) -> None:
        """Read one run.

        Args:
            seed: Of the run.
            z: Minus the value where lower is better, else the value.
            edits: Open trials whose edits the commit carries.
            offset: Gains that the incumbent has over the commit's base, for a run begun before the head moved.
            spread: Standard error of ``offset``.
        """
        self._step()
        if seed not in self._seeds:
            self._seeds[seed] = self._add(np.zeros(len(self.sd)), self._shared)
        row = self._row(seed, edits)
        error = np.clip(z + offset - self.mean[:, row].sum(axis=1), -MOST * self.sd, MOST * self.sd)
        gain, variance = self._predict(row, spread)
        loss = (error < 0) & (error**2 > WILD**2 * variance)
        if edits and loss.any():  # a wild loss is the edit's: widen its prior first, or level and seed would move
            for trial in edits:
                more = np.where(loss, error**2, 0.0)
                self.covariance[:, self._edits[trial], self._edits[trial]] += more
                mean, before = self._stand_in[trial]
                self._stand_in[trial] = (mean, before + more)
            if float(self._weights() @ loss) > 0.5:  # not only for filters that think the noise too small
                self._wild.update(edits)
            gain, variance = self._predict(row, spread)
        variance = np.maximum(variance, error**2 / WILD**2)  # any other outlier counts for less
        self._log_weights -= (np.log(variance) + error**2 / variance) / 2
        self.mean = self.mean + gain * (error / variance)[:, None]
        self.covariance = self.covariance - gain[:, :, None] * gain[:, None, :] / variance[:, None, None]

    def close(self, trial: int, kept: bool) -> None:
        """Decide an edit; a kept one becomes part of the level. Its mixture enters by its first two moments."""
        index = self._edits[trial]
        if trial not in self._wild:  # a wild loss is outside the mixture, and says nothing about other edits
            found = self._posterior(trial)
            self._seen = self._seen + self._weights({trial: found}) @ found.components
            self._log_weights = self._log_weights + found.correction
            before, column = self.covariance[:, index, index], self.covariance[:, :, index]
            self.mean = self.mean + column * ((found.gain - self.mean[:, index]) / before)[:, None]
            change = (found.variance - before) / before**2
            self.covariance = self.covariance + column[:, :, None] * column[:, None, :] * change[:, None, None]
        if kept:
            self.mean[:, _LEVEL] += self.mean[:, index]
            self.covariance[:, _LEVEL, :] += self.covariance[:, index, :]
            self.covariance[:, :, _LEVEL] += self.covariance[:, :, index]
        self._remove(index)
        del self._edits[trial], self._stand_in[trial]
        self._wild.discard(trial)

    def shift(self, gain: float, se: float) -> None:
        """The incumbent gained what another type of device has measured."""
        self.mean[:, _LEVEL] += gain
        self.covariance[:, _LEVEL, _LEVEL] += se**2

    def forget_seeds(self, kept: Collection[int]) -> None:
        """Drop the effects of seeds that will not run again, so that the state stays small."""
        for seed in [seed for seed in self._seeds if seed not in kept]:
            self._remove(self._seeds.pop(seed))

    # what is known

    def estimate(self, trial: int) -> Estimate:
        """The posterior of an open edit, averaged over the filters."""
        found = self._posterior(trial)
        weights = self._weights({trial: found})
        gain = float(weights @ found.gain)
        variance = float(weights @ (found.variance + found.gain**2)) - gain**2
        new = np.maximum(self._effects, 0.0) @ self._mixture()
        return Estimate(
            probability=float(weights @ found.probability),
            gain=gain,
            se=math.sqrt(max(variance, 0.0)),
            promise=float(weights @ found.promise),
            promise_of_new=float(weights @ new),
        )

    def information(self, trial: int, seed: int, carries: bool) -> float:
        """Expected fall of the variance of an edit's effect, in variances of a run, by one more run.

        Args:
            trial: The open edit.
            seed: Of the run.
            carries: Whether the run is of the candidate; else of the incumbent.
        """
        row = self._row(seed, (trial,) if carries else ())
        gain, variance = self._predict(row, 0.0)
        if seed not in self._seeds:
            variance = variance + self._shared
        fall = gain[:, self._edits[trial]] ** 2 / variance / self.sd**2
        return float(self._weights() @ fall)

    @property
    def noise(self) -> float:
        """Standard deviation of a run, averaged over the filters."""
        return float(self._weights() @ self.sd)

    @property
    def shared(self) -> float:
        """Correlation of runs under equal seeds, averaged over the filters."""
        return float(self._weights() @ self.correlation)

    @property
    def level(self) -> tuple[float, float]:
        """z of the incumbent now, and its standard error."""
        weights = self._weights()
        mean = float(weights @ self.mean[:, _LEVEL])
        second = float(weights @ (self.covariance[:, _LEVEL, _LEVEL] + self.mean[:, _LEVEL] ** 2))
        return mean, math.sqrt(max(second - mean**2, 0.0))

    # the filter

    def _step(self) -> None:
        """One run later: the level moves by its slope and its random walk."""
        self.mean[:, _LEVEL] += self.mean[:, _SLOPE]
        self.covariance[:, _LEVEL, :] += self.covariance[:, _SLOPE, :]
        self.covariance[:, :, _LEVEL] += self.covariance[:, :, _SLOPE]
        self.covariance[:, _LEVEL, _LEVEL] += (WALK * self.sd) ** 2

    def _row(self, seed: int, edits: Iterable[int]) -> list[int]:
        """Indices of the state that a run adds up."""
        known = [self._seeds[seed]] if seed in self._seeds else []
        return [_LEVEL, *known, *(self._edits[trial] for trial in edits)]

    def _predict(self, row: list[int], spread: float) -> tuple[Array, Array]:
        """Covariance of the state with a run's prediction (K x n), and the variance of the prediction error (K)."""
        gain = self.covariance[:, :, row].sum(axis=2)
        return gain, gain[:, row].sum(axis=1) + self._own + spread**2

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

    # mixture and weights

    def _mixture(self) -> Array:
        weights = PRIOR_EDITS * _WEIGHTS + self._seen
        return np.asarray(weights / weights.sum())

    def _weights(self, known: dict[int, _Posterior] | None = None) -> Array:
        """Of the filters: evidence of the runs, with the mixture in place of the stand-in for every open edit."""
        total = self._log_weights.copy()
        for trial in [trial for trial in self._edits if trial not in self._wild]:
            found = known[trial] if known and trial in known else self._posterior(trial)
            total += found.correction
        weights = np.exp(total - total.max())
        return np.asarray(weights / weights.sum())

    def _posterior(self, trial: int) -> _Posterior:
        """Take the stand-in out of the filtered Gaussian, and put the mixture in."""
        index = self._edits[trial]
        prior_mean, prior_variance = self._stand_in[trial]
        variance = np.maximum(self.covariance[:, index, index], 1e-12 * self.sd**2)
        data = 1 / np.maximum(1 / variance - 1 / prior_variance, 1e-9 / self.sd**2)
        seen = (self.mean[:, index] / variance - prior_mean / prior_variance) * data
        centre, wide, near = self._effects, self._spreads, data[:, None]
        logs = np.log(self._mixture()) - ((seen[:, None] - centre) ** 2 / (wide + near) + np.log(wide + near)) / 2
        top = logs.max(axis=1)
        parts = np.exp(logs - top[:, None])
        total = parts.sum(axis=1)
        parts = parts / total[:, None]
        stand_in = -((seen - prior_mean) ** 2 / (prior_variance + data) + np.log(prior_variance + data)) / 2
        means = (seen[:, None] * wide + centre * near) / (wide + near)
        means[:, -1] = 0.0  # "nothing" is exactly nothing
        variances = wide * near / (wide + near)
        variances[:, -1] = 0.0
        deviations = np.sqrt(variances[:, :-1])
        scaled = means[:, :-1] / deviations
        positive = _normal_cdf(scaled)
        upside = means[:, :-1] * positive + deviations * np.exp(-(scaled**2) / 2) / math.sqrt(2 * math.pi)
        gain = (parts * means).sum(axis=1)
        if trial in self._wild:  # the mixture has no loss of this size
            mean, variance = self.mean[:, index], self.covariance[:, index, index]
            none = np.zeros(len(self.sd))
            return _Posterior(_normal_cdf(mean / np.sqrt(variance)), mean, variance, none, parts, none)
        return _Posterior(
            probability=(parts[:, :-1] * positive).sum(axis=1),
            gain=gain,
            variance=(parts * (variances + means**2)).sum(axis=1) - gain**2,
            promise=(parts[:, :-1] * upside).sum(axis=1),
            components=parts,
            correction=top + np.log(total) - stand_in,
        )


def _normal_cdf(z: Array) -> Array:
    """Abramowitz, Stegun 7.1.26 for the error function: absolute error under 1.5e-7, and no scipy."""
    x = np.abs(z) / math.sqrt(2)
    t = 1 / (1 + 0.3275911 * x)
    poly = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))))
    erf = 1 - poly * np.exp(-(x**2))
    return np.asarray(np.where(z >= 0, (1 + erf) / 2, (1 - erf) / 2))
