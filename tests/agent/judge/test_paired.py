"""The sequential test on runs that are given."""

from __future__ import annotations

import pytest

from agent.judge.belief import Belief
from agent.judge.paired import KEEPS_PER_SEED, MAX_RUNS, WINDOW, Evidence, Next, decide, window
from benchmarks.acceptance import WORLDS, measure

SEEDS = range(WINDOW)


def decided(effects: list[float]) -> tuple[object, int]:
    """The last step on an edit whose k-th run gains ``effects[k]`` over the baseline, and the runs it took."""
    values = {0: -3.0, 1: -3.02, 2: -2.98, 3: -3.01, 4: -2.99}
    belief, seen, known = Belief(list(values.items())), list[int](), set(values)
    belief.open(1)
    for runs in range(len(effects) + 1):
        step, _ = decide(belief, Evidence(1, seen, known, runs), SEEDS)
        if not isinstance(step, Next) or runs == len(effects):
            return step, runs
        level = values.get(step.seed, -3.0)
        if step.of_candidate:
            belief.observe(step.seed, level + effects[runs], 1)
            seen.append(step.seed)
        else:
            belief.observe(step.seed, level)
            known.add(step.seed)
    raise AssertionError("unreachable")


def test_first_run_is_of_the_candidate() -> None:
    step, runs = decided([])
    assert isinstance(step, Next)
    assert (step.of_candidate, runs) == (True, 0)


def test_clear_loss_is_dropped_after_one_run() -> None:
    assert decided([-0.2] * 8) == ("revert", 1)


def test_clear_gain_is_kept() -> None:
    step, runs = decided([0.15] * 8)
    assert step == "keep"
    assert runs <= 3


def test_edit_without_effect_is_dropped() -> None:
    step, runs = decided([0.0] * MAX_RUNS)
    assert step == "revert"
    assert runs <= MAX_RUNS


@pytest.mark.parametrize("kept", [0, 3, KEEPS_PER_SEED, 40])
def test_window_moves_on_with_keeps(kept: int) -> None:
    found = window(kept)
    assert len(found) == WINDOW
    assert found[0] == kept // KEEPS_PER_SEED


@pytest.mark.parametrize("rho", [0.0, 0.9])
def test_simulated_night_keeps_few_false_edits(rho: float) -> None:
    found = measure(WORLDS[0], "confirm", rho, runs=[60], nights=6, seed=1)[0]
    naive = measure(WORLDS[0], "greedy", rho, runs=[60], nights=6, seed=1)[0]
    assert found.false_share < naive.false_share / 2
    assert found.true_gain > 0
