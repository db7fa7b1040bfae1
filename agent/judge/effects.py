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

from agent.judge.filters import Array

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
class Posterior:
    """Of one effect under each of the F filters."""

    probability: Array  # of a gain
    gain: Array
    variance: Array
    promise: Array  # expected gain if the edit were kept exactly when it is one
    components: Array  # F x C, responsibilities of the components
    evidence: Array  # log density of the measurement


class Effects:
    """The mixture, its weights learned from the edits that were decided."""

    def __init__(self) -> None:
        self.weights: Array = _WEIGHTS
        self._seen: list[Array] = []  # likelihood of each component, up to a factor, for each decided edit

    def learn(self, components: Array) -> None:
        """Count a decided edit, given its responsibilities (C). The weights follow by a few steps of EM."""
        self._seen.append(components / self.weights)
        seen = np.array(self._seen)
        for _ in range(EM_STEPS):
            parts = seen * self.weights
            weights = PRIOR_EDITS * _WEIGHTS + (parts / parts.sum(axis=1, keepdims=True)).sum(axis=0)
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

    def posterior(self, sd: Array, seen: Array, variance: Array) -> Posterior:
        """Given an effect measured as ``seen`` with an error of variance ``variance`` (F)."""
        (centre, wide), near = _scaled(sd), variance[:, None]
        logs = np.log(self.weights) - ((seen[:, None] - centre) ** 2 / (wide + near) + np.log(wide + near)) / 2
        top = logs.max(axis=1)
        parts = np.exp(logs - top[:, None])
        total = parts.sum(axis=1)
        parts = parts / total[:, None]
        means = (seen[:, None] * wide + centre * near) / (wide + near)
        means[:, -1] = 0.0  # "nothing" is exactly nothing
        variances = wide * near / (wide + near)
        variances[:, -1] = 0.0
        deviations = np.sqrt(variances[:, :-1])
        scaled = means[:, :-1] / deviations
        positive = normal_cdf(scaled)
        upside = means[:, :-1] * positive + deviations * np.exp(-(scaled**2) / 2) / math.sqrt(2 * math.pi)
        gain = (parts * means).sum(axis=1)
        return Posterior(
            probability=(parts[:, :-1] * positive).sum(axis=1),
            gain=gain,
            variance=(parts * (variances + means**2)).sum(axis=1) - gain**2,
            promise=(parts[:, :-1] * upside).sum(axis=1),
            components=parts,
            evidence=top + np.log(total),
        )


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
