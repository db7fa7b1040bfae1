"""The prior of an edit's effect, and what it makes of a Gaussian measurement.

Effects are gains and losses of seven sizes, or exactly nothing. The weights follow the effects seen in the session
(empirical Bayes).

Source:
    B. Efron, C. Morris, Stein's estimation rule and its competitors, 1973.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agent.judge.filters import Array

Real = slice | NDArray[np.bool_]

SIZES = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)  # of effects, in standard deviations of a run
GAINS = (0.0064, 0.008, 0.016, 0.02, 0.016, 0.0096, 0.004)  # prior weight of a gain of each size
LOSSES = (0.026, 0.0416, 0.0624, 0.104, 0.1144, 0.104, 0.0676)
NOTHING = 0.4
SPREAD = 0.4  # standard deviation of a component over its size
PRIOR_EDITS = 20.0  # the prior weights count for as much as this many edits seen
EM_STEPS = 5  # for each edit; the weights go on from where the last edit left them

_MEANS = np.array([*SIZES, *(-size for size in SIZES), 0.0])  # the last component is "nothing"
_WEIGHTS = np.array([*GAINS, *LOSSES, NOTHING]) / sum((*GAINS, *LOSSES, NOTHING))


@dataclass(frozen=True)
class Worth:
    """What is known of one edit. Gains are in units of the metric; positive is better."""

    probability: float  # that the edit is a gain
    gain: float  # posterior mean
    se: float  # posterior standard deviation


@dataclass(frozen=True)
class Posterior:
    """Of one effect under each of F filters."""

    probability: Array  # of a gain
    gain: Array
    variance: Array
    promise: Array  # expected gain if the edit were kept exactly when it is one
    parts: Array  # F x C, responsibilities of the components of the prior
    evidence: Array  # log density of the measurement


def posterior(prior: Array, centre: Array, wide: Array, seen: Array, error: Array, real: Real) -> Posterior:
    """Apply Bayes' rule to an effect measured as ``seen`` with an error of variance ``error`` (F).

    Args:
        prior: InitialWeights of the components (C).
        centre: Their means (F x C); a component with the mean 0 is exactly nothing.
        wide: Their variances (F x C).
        real: Selects the components that are not nothing.
    """
    seen, near = seen[:, None], error[:, None]
    logs = np.log(prior) - ((seen - centre) ** 2 / (wide + near) + np.log(wide + near)) / 2
    top = logs.max(axis=1)
    parts = np.exp(logs - top[:, None])
    total = parts.sum(axis=1)
    parts = parts / total[:, None]
    something = centre != 0
    means = np.where(something, (seen * wide + centre * near) / (wide + near), 0.0)
    variances = np.where(something, wide * near / (wide + near), 0.0)
    deviations = np.sqrt(variances[:, real])
    scaled = means[:, real] / deviations
    positive = normal_cdf(scaled)
    upside = means[:, real] * positive + deviations * np.exp(-(scaled**2) / 2) / math.sqrt(2 * math.pi)
    gain = (parts * means).sum(axis=1)
    return Posterior(
        probability=(parts[:, real] * positive).sum(axis=1),
        gain=gain,
        variance=(parts * (variances + means**2)).sum(axis=1) - gain**2,
        promise=(parts[:, real] * upside).sum(axis=1),
        parts=parts,
        evidence=top + np.log(total),
    )


def moments(weights: Array, mean: Array, variance: Array) -> tuple[float, float]:
    """Mean and standard deviation of a weighted mixture."""
    centre = float(weights @ mean)
    return centre, math.sqrt(max(float(weights @ (variance + mean**2)) - centre**2, 0.0))


class Effects:
    """The mixture, its weights learned from the edits that were decided."""

    def __init__(self) -> None:
        self.weights: Array = _WEIGHTS
        self._seen: list[Array] = []  # likelihood of each component, up to a factor, for each decided edit

    def learn(self, parts: Array) -> None:
        """Count a decided edit, given its responsibilities (C). The weights follow by a few steps of EM."""
        self._seen.append(parts / self.weights)
        seen = np.array(self._seen)
        for _ in range(EM_STEPS):
            found = seen * self.weights
            weights = PRIOR_EDITS * _WEIGHTS + (found / found.sum(axis=1, keepdims=True)).sum(axis=0)
            self.weights = weights / weights.sum()

    def moments(self, sd: Array) -> tuple[Array, Array]:
        """Mean and variance of an effect where a run has the standard deviation ``sd`` (F)."""
        centre, wide = _scaled(sd)
        mean = centre @ self.weights
        return mean, (centre**2 + wide) @ self.weights - mean**2

    def promise(self, sd: Array) -> Array:
        """Expected gain of an edit that has not run, were it kept exactly when it is one."""
        centre, _ = _scaled(sd)
        return np.asarray(np.maximum(centre, 0.0) @ self.weights)

    def posterior(self, sd: Array, seen: Array, error: Array) -> Posterior:
        """Given an effect measured as ``seen`` with an error of variance ``error`` (F)."""
        return posterior(self.weights, *_scaled(sd), seen, error, slice(-1))


def _scaled(sd: Array) -> tuple[Array, Array]:
    """Means and variances of the components (F x C)."""
    centre = _MEANS * sd[:, None]
    return centre, np.maximum((SPREAD * centre) ** 2, 1e-12 * sd[:, None] ** 2)


def normal_cdf(z: Array) -> Array:
    """Abramowitz, Stegun 7.1.26 for the error function: absolute error under 1.5e-7, and no scipy."""
    x = np.abs(z) / math.sqrt(2)
    t = 1 / (1 + 0.3275911 * x)
    poly = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))))
    erf = 1 - poly * np.exp(-(x**2))
    return np.asarray(np.where(z >= 0, (1 + erf) / 2, (1 - erf) / 2))
