"""The belief about edits under test, on runs whose true effects are known."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from models import level_of, shared_of

from agent.judge.belief import Belief
from agent.judge.sharing import InitialWeights

SEEDS = range(5)
WEIGHTS: tuple[InitialWeights, InitialWeights] = ("equal", "different")


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


@pytest.mark.parametrize("rho", [0.0, 0.98])
def test_common_noise_is_learned_from_paired_runs(rho: float) -> None:
    belief, *noise = session(rho, seed=5)
    for trial in range(6):
        belief.open(1)
        for seed in (0, 1, 2):
            run(belief, (noise[0], noise[1]), rho, seed, -0.02 * (trial % 3))
        belief.close(1, kept=False)
    belief.open(1)
    in_common = shared_of(belief) * belief.estimate(1).shares
    assert in_common > 0.7 if rho else in_common < 0.5


def scattered(belief: Belief, trial: int, spread: float, effect: float = 0.0) -> None:
    """Three runs whose differences to the baseline under equal seeds alternate by ``spread``."""
    for seed in (0, 1, 2):
        base = [-3.03, -3.0, -2.97][seed]
        belief.observe(seed, base + effect + spread * (-1) ** seed, trial)


def quiet() -> Belief:
    """A belief that has seen five edits whose paired differences agree."""
    belief = Belief([(0, -3.03), (1, -3.0), (2, -2.97), (3, -3.02), (4, -2.98)])
    for trial in range(5):
        belief.open(trial)
        scattered(belief, trial, 0.001, -0.03)
        belief.close(trial, kept=False)
    return belief


def test_scattered_differences_show_an_edit_that_does_not_share() -> None:
    belief = quiet()
    belief.open(8)
    scattered(belief, 8, 0.002)
    shares = belief.estimate(8).shares
    belief.close(8, kept=False)
    belief.open(9)
    scattered(belief, 9, 0.03)
    assert belief.estimate(9).shares < 0.1 < 0.9 < shares


def test_one_surprising_gain_is_surer_with_equal_weights() -> None:
    found = []
    for weights in WEIGHTS:
        belief = quiet()
        belief.open(9, weights)
        belief.observe(0, -3.03 + 0.02, 9)
        found.append(belief.estimate(9).probability)
    assert found[0] > found[1]


def test_keep_of_edit_that_does_not_share_replaces_seed_effects() -> None:
    effects = []
    for spread in (0.001, 0.03):
        belief = quiet()
        belief.open(9)
        scattered(belief, 9, spread, effect=0.3)
        belief.close(9, kept=True)
        belief.open(10)
        belief.observe(4, -2.68, 10)  # a seed that the new incumbent has not run
        effects.append(belief.estimate(10).se)
    assert effects[1] > 2 * effects[0]


def test_many_open_edits_keep_state_small() -> None:
    belief = quiet()
    for trial in range(20, 28):
        belief.open(trial)
        belief.observe(trial % 5, -3.0, trial)
    started = belief.estimate(27)
    for trial in range(20, 27):
        belief.close(trial, kept=False)
    after = belief.estimate(27)
    assert after.gain == pytest.approx(started.gain, abs=3 * started.se)


def test_kept_edit_raises_level_by_its_gain() -> None:
    belief, *noise = session(0.9)
    before, _ = level_of(belief)
    belief.open(1)
    for seed in SEEDS:
        run(belief, (noise[0], noise[1]), 0.9, seed, 0.1)
    belief.close(1, kept=True)
    after, se = level_of(belief)
    assert abs(after - before - 0.1) < 4 * se


def test_wild_loss_is_blamed_on_its_edit() -> None:
    belief, *_ = session(0.9)
    before, _ = level_of(belief)
    belief.open(1)
    belief.observe(0, -50.0, 1)
    found = belief.estimate(1)
    assert found.probability < 0.01
    belief.close(1, kept=False)
    assert abs(level_of(belief)[0] - before) < 0.005


@pytest.mark.parametrize("sizes", [10, 30, 55, 5000])
@pytest.mark.parametrize("rho", [0.0, 0.9])
def test_huge_gain_counts_after_two_runs(rho: float, sizes: float) -> None:
    belief, *noise = session(rho)
    belief.open(1)
    run(belief, (noise[0], noise[1]), rho, 0, sizes * 0.02)
    first = belief.estimate(1)
    assert first.promise > first.promise_of_new, "it is not dropped after one run"
    run(belief, (noise[0], noise[1]), rho, 1, sizes * 0.02)
    found = belief.estimate(1)
    assert found.probability > 0.9
    assert found.gain > min(sizes, 40) * 0.02 / 2
    before = level_of(belief)[0]
    belief.close(1, kept=True)
    assert level_of(belief)[0] == pytest.approx(before + found.gain, abs=0.01)


def test_run_on_seed_of_incumbent_tells_most() -> None:
    belief, *noise = session(0.9)
    for trial in range(4):
        belief.open(1)
        for seed in (0, 1):
            run(belief, (noise[0], noise[1]), 0.9, seed, -0.01 * trial)
        belief.close(1, kept=False)
    belief.open(1)
    of_incumbent, new = belief.information(1, [(0, True), (15, True)])
    assert of_incumbent > new


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


@settings(max_examples=60)
@given(runs=RUNS, keep=st.booleans())
def test_any_finite_values_give_finite_estimates(runs: list[tuple[int, float, bool]], keep: bool) -> None:
    belief = Belief([(k, -3.0 + 0.01 * k) for k in SEEDS])
    belief.open(1)
    for seed, z, carries in runs:
        belief.observe(seed, z, 1 if carries else None)
    found = belief.estimate(1)
    belief.close(1, keep)
    assert all(map(math.isfinite, (found.probability, found.gain, found.se, found.promise, *level_of(belief))))


def test_same_runs_give_same_bits() -> None:
    found = []
    for _ in range(2):
        belief, *noise = session(0.6)
        belief.open(1)
        run(belief, (noise[0], noise[1]), 0.6, 3, 0.02)
        found.append(belief.estimate(1))
    assert found[0] == found[1]
