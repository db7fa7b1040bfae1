"""Predictions from loss curves: windows, the regression, and when a run is hopeless."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from agent.judge.hopeless import EVIDENCE, MILESTONES, Milestones, Pair, Watch, fits_of

CURVE = (6.0, 4.0, 3.5, 3.2)  # of the incumbent


def pairs(count: int, noise: float = 0.002, seed: int = 0) -> list[Pair]:
    """Edits whose final value is worse by half of the difference of their losses."""
    draw, found = random.Random(seed), []
    for _ in range(count):
        worse = draw.uniform(-0.05, 0.3)
        after = (CURVE[0], *(loss + worse for loss in CURVE[1:]))
        found.append(Pair(CURVE, after, -0.5 * worse + draw.gauss(0, noise)))
    return found


def watch(**changes: object) -> Watch:
    made = Watch(CURVE, 3.0, "minimize", "cpu", fits_of(pairs(40)), gate=-0.01)
    return replace(made, **changes)  # type: ignore[arg-type]


def worse(by: float, milestones: int = 2) -> tuple[float, ...]:
    return (CURVE[0], *(loss + by for loss in CURVE[1:milestones]))


def test_milestones_are_means_over_a_window() -> None:
    curve = Milestones()
    passed = [curve.add(step / 100, float(step)) for step in range(100)]
    assert [step for step, hit in enumerate(passed) if hit] == [0, 30, 50, 70]
    assert curve.losses == pytest.approx((0.0, 25.5, 45.5, 65.5))


def test_skipped_milestones_count_as_passed_together() -> None:
    curve = Milestones()
    curve.add(0.0, 6.0)
    assert curve.add(0.6, 4.0)
    assert curve.losses == (6.0, 4.0, 4.0)


@pytest.mark.parametrize("step", [(None, 1.0), (0.5, None), (None, None)])
def test_steps_without_numbers_are_skipped(step: tuple[float | None, float | None]) -> None:
    curve = Milestones()
    assert not curve.add(*step)
    assert curve.losses == ()


def test_clear_loss_is_predicted_with_its_value() -> None:
    found = watch().look(worse(0.4))
    assert found is not None
    assert found.progress == MILESTONES[1]
    assert found.gain == pytest.approx(-0.2, abs=0.01)
    assert found.value == pytest.approx(3.2, abs=0.01)
    assert found.se < 0.01


def test_prediction_counts_down_for_a_metric_to_maximize() -> None:
    found = watch(goal="maximize").look(worse(0.4))
    assert found is not None
    assert found.value == pytest.approx(2.8, abs=0.01)


@pytest.mark.parametrize("by", [-0.2, 0.0, 0.015])
def test_no_loss_beyond_the_gate_is_hopeless(by: float) -> None:
    assert watch().look(worse(by)) is None


def test_gate_moves_the_decision() -> None:
    assert watch(gate=-0.5).look(worse(0.4)) is None


def test_other_kind_of_loss_is_never_hopeless() -> None:
    assert watch().look((6.5, 6.5)) is None


def test_run_without_curve_is_never_hopeless() -> None:
    assert watch().look(()) is None
    assert watch(losses=()).look(worse(0.4)) is None


def test_too_few_pairs_give_no_fit() -> None:
    assert fits_of(pairs(EVIDENCE - 1)) == ()
    assert len(fits_of(pairs(EVIDENCE))) == len(MILESTONES) - 1


def test_pairs_with_another_kind_of_loss_are_no_evidence() -> None:
    other = [replace(pair, after=(9.0, *pair.after[1:])) for pair in pairs(40)]
    assert fits_of(other) == ()


def test_noisy_predictions_stop_nothing_small() -> None:
    noisy = watch(fits=fits_of(pairs(40, noise=0.2)))
    assert noisy.look(worse(0.4)) is None


def test_errors_stay_below_one_percent_where_the_model_holds() -> None:
    wrong = stopped = 0
    for seed in range(300):
        made = watch(fits=fits_of(pairs(EVIDENCE, noise=0.02, seed=seed)), gate=0.0)
        draw = random.Random(f"new {seed}")
        by = draw.uniform(0.0, 0.3)
        if made.look(worse(by)):
            stopped += 1
            wrong += -0.5 * by + draw.gauss(0, 0.02) > 0
    assert stopped > 30
    assert wrong <= 0.01 * 300
