"""Outcomes of a promotion: pure functions of pairs of runs."""

from __future__ import annotations

from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.replay.outcomes import PAIRS, Finding, held, result_of
from agent.replay.plan import Comparison, Plan, Setting, Stage
from agent.replay.steps import Step
from agent.types import Measurement

EDIT = Step(1, "e", "edit", 4, gain=0.05, gain_se=0.005)
BEFORE, AFTER = Step(1000, "b", "before"), Step(1001, "a", "after")


def runs_of(commit: str, values: list[float | None]) -> tuple[Measurement, ...]:
    status = {True: "ok", False: "crash"}
    return tuple(
        Measurement(commit, "replay", seed, "cpu", status[value is not None], value)  # type: ignore[arg-type]
        for seed, value in enumerate(values)
    )


def finding(before: list[float | None], after: list[float | None], rounds: int = 8, edit: Step = EDIT) -> Finding:
    comparison = Comparison(edit, BEFORE, AFTER)
    return findings((comparison,), {"b": runs_of("b", before), "a": runs_of("a", after)}, rounds)[0]


def findings(
    comparisons: tuple[Comparison, ...], runs: dict[str, tuple[Measurement, ...]], rounds: int
) -> tuple[Finding, ...]:
    plan = Plan("night", rounds, "minimize", "val_bpb", "10s", (Stage(Setting("10s"), comparisons),))
    return result_of(plan, runs).found[0]


@pytest.mark.parametrize(
    ("gains", "outcome"),
    [
        ([0.05, 0.051, 0.049, 0.05], "holds"),
        ([0.02, 0.021, 0.019, 0.02], "shrinks"),
        ([0.001, -0.001, 0.0012, -0.0009], "shrinks"),
        ([-0.05, -0.051, -0.049, -0.05], "reverses"),
        ([0.09, -0.03, 0.06, -0.04], "cannot tell"),
        ([0.0, 0.0, 0.0, 0.0], "no effect"),
    ],
)
def test_gains_of_pairs_give_the_outcome(gains: list[float], outcome: str) -> None:
    values = [3.0, 3.4, 2.9, 3.2]  # seeds differ far more than the edit gains
    found = finding([*values], [v - g for v, g in zip(values, gains, strict=True)], rounds=4)
    assert found.outcome == outcome, found.reason
    assert found.gain == pytest.approx(fmean(gains))
    assert found.n == 4


def test_smaller_gain_above_zero_still_holds_for_the_branch() -> None:
    assert held(finding([3.0, 3.1, 3.2], [2.98, 3.08, 3.18], rounds=3))
    assert not held(finding([3.0, 3.1, 3.2, 3.3], [3.001, 3.098, 3.201, 3.299], rounds=4))


def test_crash_at_the_setting_is_a_finding() -> None:
    assert finding([3.0, 3.0], [None]).outcome == "fails"
    assert finding([None], [2.0, 2.0]).outcome == "cannot tell"


def test_one_pair_decides_nothing() -> None:
    found = finding([3.0], [1.0])
    assert (found.outcome, found.decided) == ("cannot tell", False)


def test_clear_gain_stops_before_the_last_seed() -> None:
    gains = [0.05, 0.0501, 0.0499, 0.05]
    assert finding([3.0] * 4, [3.0 - g for g in gains]).decided
    noisy = [0.03, 0.01, 0.06, 0.0]
    assert not finding([3.0] * 4, [3.0 - g for g in noisy]).decided
    assert finding([3.0] * 4, [3.0 - g for g in noisy], rounds=4).decided


def test_loss_within_noise_is_not_decided_early() -> None:
    gains = [-0.022, -0.010, -0.033]
    assert not finding([3.0] * 3, [3.0 - g for g in gains]).decided
    assert finding([3.0] * 3, [3.0 - g for g in gains], rounds=3).outcome == "reverses"


def test_two_alike_pairs_use_the_variance_of_others() -> None:
    other = Comparison(EDIT, Step(1002, "c", ""), Step(1003, "d", ""))
    comparisons = (Comparison(EDIT, BEFORE, AFTER), other, other)
    runs = {
        "b": runs_of("b", [3.0, 3.0]),
        "a": runs_of("a", [2.99, 2.9899999]),
        "c": runs_of("c", [3.0, 3.0]),
        "d": runs_of("d", [2.9, 3.2]),
    }
    first, *_ = findings(comparisons, runs, 8)
    assert not first.decided


@given(st.lists(st.floats(-1, 1), min_size=PAIRS, max_size=8))
def test_early_decisions_are_stricter_than_late_ones(gains: list[float]) -> None:
    after: list[float | None] = [3.0 - g for g in gains]
    early, late = finding([3.0] * len(gains), after, rounds=99), finding([3.0] * len(gains), after, rounds=len(gains))
    assert late.decided
    if early.outcome in ("holds", "reverses"):
        assert late.outcome in (early.outcome, "shrinks")
