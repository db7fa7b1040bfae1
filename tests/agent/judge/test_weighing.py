"""The linear model of stacked runs: it tells edits apart, and says how sure it is."""

from __future__ import annotations

import random

import pytest
from models import level_of, shared_of

from agent.judge.stacked import choose
from agent.judge.weighing import Weighing

SEEDS = range(8)


def weighing(draw: random.Random, shared: float) -> tuple[Weighing, dict[int, float]]:
    """A model after five runs of the baseline, and the effect of each seed."""
    effects = {seed: draw.gauss(0, shared**0.5) for seed in SEEDS}
    return Weighing([(s, effects[s] + draw.gauss(0, (1 - shared) ** 0.5)) for s in range(5)]), effects


def weighed(truth: dict[int, float], runs: int, shared: float = 0.9, seed: int = 1) -> Weighing:
    """A model after ``runs`` runs, each with a chosen half of the edits and at first a new one."""
    draw = random.Random(seed)
    model, effects = weighing(draw, shared)
    known: list[int] = []
    for k in range(runs):
        new = [edit for edit in list(truth)[k : k + 1] if edit not in known]
        for edit in new:
            model.open(edit)
        inside = choose(model.variances(k % 8, known), draw)
        carried = [*(edit for edit, chosen in zip(known, inside, strict=True) if chosen), *new]
        noise = effects[k % 8] + draw.gauss(0, (1 - shared) ** 0.5)
        model.observe(k % 8, sum(truth[edit] for edit in carried) + noise, carried, new)
        known += new
    return model


@pytest.mark.parametrize("shared", [0.0, 0.9])
def test_gains_and_losses_in_the_same_runs_are_separated(shared: float) -> None:
    truth = {1: 2.0, 2: -2.0, 3: 0.0, 4: 4.0, 5: -1.0, 6: 2.0}
    model = weighed(truth, 60, shared)
    for edit, gain in truth.items():
        worth = model.worth[edit]
        assert abs(worth.gain - gain) < 4 * worth.se + 0.1
        assert (worth.probability > 0.9) == (gain > 0)


def test_correlation_under_equal_seeds_is_learned() -> None:
    truth = dict.fromkeys(range(8), 0.0)
    assert shared_of(weighed(truth, 80, 0.95)) > 0.75
    assert shared_of(weighed(truth, 80, 0.0)) < 0.5


def test_wild_loss_of_a_new_edit_leaves_the_others() -> None:
    model = weighed({1: 2.0, 2: 0.0}, 20)
    before = model.worth[1]
    model.open(3)
    assert model.observe(0, -60.0, [1, 3], [3])
    assert model.worth[3].probability < 0.001
    assert abs(model.worth[1].gain - before.gain) < 0.3


def test_wild_loss_of_two_new_edits_accuses_neither_yet() -> None:
    model = weighed({1: 2.0}, 20)
    for edit in (2, 3):
        model.open(edit)
    assert model.observe(0, -60.0, [2, 3], [2, 3])
    assert model.worth[2].probability > 0.1
    model.observe(1, 0.5, [2])
    assert model.worth[3].probability < 0.001


def test_repeated_huge_gain_is_no_outlier() -> None:
    model = weighed({1: 2.0}, 20)
    model.open(2)
    assert not model.observe(0, 5000.0, [2], [2])
    model.observe(1, 5000.0, [2])
    assert model.worth[2].probability > 0.99
    assert model.worth[2].gain > 4000


def test_wild_loss_without_a_new_edit_counts_for_little() -> None:
    model = weighed({1: 2.0, 2: 2.0}, 30)
    model.observe(0, -40.0, [1, 2])
    assert model.worth[1].gain > 1.0


def test_kept_edit_becomes_part_of_the_level() -> None:
    model = weighed({1: 4.0, 2: 0.0}, 30)
    model.close(1, kept=True)
    before = model.worth[2].gain
    model.observe(0, 4.0 + 0.0, [])
    assert abs(model.worth[2].gain - before) < 0.5
    assert level_of(model)[0] > 2.5


def test_late_run_without_a_kept_edit_is_corrected() -> None:
    models = [weighed({1: 4.0, 2: 0.0}, 30) for _ in range(2)]
    for model in models:
        model.close(1, kept=True)
    models[0].observe(0, 0.0, [2], offset=4.0, spread=0.5)
    models[1].observe(0, 4.0, [2])
    assert models[0].worth[2].gain == pytest.approx(models[1].worth[2].gain, abs=0.2)


def test_runs_that_do_not_vary_cannot_be_weighed() -> None:
    with pytest.raises(ValueError, match="noise"):
        Weighing([(0, 1.0), (1, 1.0)])


def test_pending_runs_lower_what_another_like_it_tells() -> None:
    model = weighed({1: 2.0, 2: -1.0}, 6)
    alone, after = (model.variances(0, [1, 2], pending) for pending in ([], [[1]]))
    assert after[1, 1] < alone[1, 1]
