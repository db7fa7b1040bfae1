"""What the models of runs hold beside the effects of edits."""

from __future__ import annotations

import numpy as np

from agent.judge.belief import Belief
from agent.judge.effects import moments
from agent.judge.filters import LEVEL
from agent.judge.weighing import CORRELATIONS as CORRELATIONS_OF_STACKS
from agent.judge.weighing import Weighing


def level_of(model: Belief | Weighing) -> tuple[float, float]:
    """z of the incumbent now, and its standard error (under ``Weighing``: in standard deviations of a run)."""
    weights = model._weights() if isinstance(model, Belief) else model.weights()
    filters = model._filters
    return moments(weights, filters.mean[:, LEVEL], filters.covariance[:, LEVEL, LEVEL])


def shared_of(model: Belief | Weighing) -> float:
    """Correlation of runs under equal seeds."""
    if isinstance(model, Weighing):
        return float(model.weights() @ CORRELATIONS_OF_STACKS)
    return float(model._weights() @ np.tile(model._correlations, len(model._blocks)))
