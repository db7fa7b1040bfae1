"""How likely an edit shares the effects of seeds with its parent.

An edit of a constant keeps the random numbers of a run, so a seed moves both sides alike. An edit that adds or resizes
parameters draws other random numbers, and equal seeds say no more than different ones. Two shares of common noise are
held possible for each edit; how often each holds is learned from the edits that were decided.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np

from agent.judge.filters import Array

SHARES = (1.0, 0.0)  # coefficients of a seed's effect in a run of the candidate
InitialWeights = Literal["equal", "different", "unknown"]  # initial weights of both sides under one seed

_RATES = np.array([0.02, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 0.98])  # possible shares of edits that share noise
_PRIORS: Mapping[InitialWeights, tuple[float, float]] = {
    "equal": (4, 1),
    "different": (1, 2),
    "unknown": (2, 1),
}  # of Beta


class Sharing:
    """The rate of edits that share noise, by what their initial weights say."""

    def __init__(self) -> None:
        self._logs: dict[InitialWeights, Array] = {
            kind: (a - 1) * np.log(_RATES) + (b - 1) * np.log(1 - _RATES) for kind, (a, b) in _PRIORS.items()
        }

    def priors(self, weights: InitialWeights) -> tuple[float, float]:
        """Probability of each of ``SHARES`` for a new edit."""
        logs = self._logs[weights]
        chances = np.exp(logs - logs.max())
        rate = float(chances @ _RATES / chances.sum())
        return rate, 1 - rate

    def learn(self, weights: InitialWeights, evidence: Array) -> None:
        """Count a decided edit by the log evidence of its runs under each of ``SHARES``."""
        shares, apart = evidence
        found = np.logaddexp(np.log(_RATES) + shares, np.log(1 - _RATES) + apart)
        self._logs[weights] = self._logs[weights] + found
