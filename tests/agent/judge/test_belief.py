"""The belief about edits under test, on runs whose true effects are known."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.judge.belief import Belief

SEEDS = range(5)


def session(rho: float, seed: int = 1, spread: float = 0.02) -> tuple[Belief, random.Random, dict[int, float]]:
    """A belief after five calibration runs, the generator of further noise, and the effects of seeds."""
    draw = random.Random(seed)
    shared = {k: draw.gauss(0, spread * math.sqrt(rho)) for k in range(20)}
    own = spread * math.sqrt(1 - rho)
    return Belief([(k, -3.0 + shared[k] + draw.gauss(0, own)) for k in SEEDS]), draw, shared


def run(belief: Belief, found: tuple[random.Random, dict[int, float]], rho: float, seed: int, effect: float) -> None:
    draw, shared = found
    noise = draw.gauss(0, 0.02 * math.sqrt(1 - rho))
    belief.observe(seed, -3.0 + effect + shared[seed] + noise, 1)


@pytest.mark.parametrize("values", [[1.0], [2.0, 2.0, 2.0], []])
def test_noise_needs_two_different_calibration_runs(values: list[float]) -> None:
    with pytest.raises(ValueError, match="noise"):
        Belief(list(enumerate(values)))


@pytest.mark.parametrize("rho", [0.0, 0.9])
@pytest.mark.parametrize("effect", [-0.08, 0.0, 0.08])
def test_effect_is_recovered_within_its_error(rho: float, effect: float) -> None:
    belief, *noise = session(rho, seed=3)
    belief.open(1)
    for seed in SEEDS:
        run(belief, (noise[0], noise[1]), rho, seed, effect)
    found = belief.estimate(1)
    assert abs(found.gain - effect) < 4 * max(found.se, 0.004)
    assert (found.probability > 0.9) == (effect > 0)


def test_common_noise_is_learned_from_paired_runs() -> None:
    shares = []
    for rho in (0.0, 0.98):
        belief, *noise = session(rho, seed=5)
        for trial in range(6):
            belief.open(1)
            for seed in (0, 1, 2):
                run(belief, (noise[0], noise[1]), rho, seed, -0.02 * (trial % 3))
            belief.close(1, kept=False)
        shares.append(belief.shared)
    assert shares[0] < 0.5 < shares[1]


def test_kept_edit_raises_level_by_its_gain() -> None:
    belief, *noise = session(0.9)
    before, _ = belief.level
    belief.open(1)
    for seed in SEEDS:
        run(belief, (noise[0], noise[1]), 0.9, seed, 0.1)
    belief.close(1, kept=True)
    after, se = belief.level
    assert abs(after - before - 0.1) < 4 * se


def test_wild_loss_is_blamed_on_its_edit() -> None:
    belief, *_ = session(0.9)
    before, _ = belief.level
    belief.open(1)
    belief.observe(0, -50.0, 1)
    found = belief.estimate(1)
    assert found.probability < 0.01
    belief.close(1, kept=False)
    assert abs(belief.level[0] - before) < 0.005


def test_run_on_seed_of_incumbent_tells_most() -> None:
    belief, *noise = session(0.9)
    for trial in range(4):
        belief.open(1)
        for seed in (0, 1):
            run(belief, (noise[0], noise[1]), 0.9, seed, -0.01 * trial)
        belief.close(1, kept=False)
    belief.open(1)
    assert belief.information(1, 0, carries=True) > belief.information(1, 15, carries=True)


def test_offset_reads_run_on_older_base() -> None:
    plain, *_ = session(0.9)
    moved, *_ = session(0.9)
    plain.open(1)
    moved.open(1)
    plain.observe(0, -2.9, 1)
    moved.observe(0, -3.0, 1, offset=0.1)
    assert moved.estimate(1) == plain.estimate(1)


def test_forgotten_seed_leaves_estimates_usable() -> None:
    belief, *noise = session(0.9)
    belief.forget_seeds({2, 3, 4})
    belief.open(1)
    for seed in (1, 2, 3):
        run(belief, (noise[0], noise[1]), 0.9, seed, 0.1)
    assert belief.estimate(1).probability > 0.9


RUNS = st.lists(st.tuples(st.integers(0, 6), st.floats(-1e100, 1e100), st.booleans()), max_size=12)


@settings(max_examples=60, deadline=None)
@given(runs=RUNS, keep=st.booleans())
def test_any_finite_values_give_finite_estimates(runs: list[tuple[int, float, bool]], keep: bool) -> None:
    belief = Belief([(k, -3.0 + 0.01 * k) for k in SEEDS])
    belief.open(1)
    for seed, z, carries in runs:
        belief.observe(seed, z, 1 if carries else None)
    found = belief.estimate(1)
    belief.close(1, keep)
    assert all(map(math.isfinite, (found.probability, found.gain, found.se, found.promise, *belief.level)))


def test_same_runs_give_same_bits() -> None:
    found = []
    for _ in range(2):
        belief, *noise = session(0.6)
        belief.open(1)
        run(belief, (noise[0], noise[1]), 0.6, 3, 0.02)
        found.append(belief.estimate(1))
    assert found[0] == found[1]
