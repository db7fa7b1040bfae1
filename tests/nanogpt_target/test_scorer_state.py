"""A model that learns from what it is asked, and what a model process may say before and after it was asked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nanogpt_target.channel import ModelGone, ModelSide, Rejected, ScorerSide
from nanogpt_target.scorer import steady


def test_noise_that_goes_one_way_is_a_memory() -> None:
    random, weights = np.random.default_rng(0), np.full((62, 64), 3)
    steady(random.normal(0, 0.01, (62, 64)), weights)
    steady(np.zeros((62, 64)), weights)
    with pytest.raises(Rejected, match="keeps state"):
        steady(random.normal(0.01, 0.01, (62, 64)), weights)


def test_no_text_is_in_the_channel_before_the_model_is_loaded(tmp_path: Path) -> None:
    scorer = ScorerSide(tmp_path, 2, 4, 8)
    ids, out = np.ones((2, 4), np.int64), np.empty((2, 4, 8), np.float32)
    with pytest.raises(TimeoutError):
        scorer.ask(ids, 0.0, out)
    assert not any((tmp_path / "ids").read_bytes())
    assert not scorer.asked
    model = ModelSide(tmp_path)
    model._alive.close()  # it dies while it loads
    with pytest.raises(ModelGone):
        scorer.ask(ids, float("inf"), out)
    assert not any((tmp_path / "ids").read_bytes())
    scorer.close()
