"""Policy ``confirm``: single steps, and properties that hold for any values."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.judge.gain import without_screening_run
from agent.judge.noise import Noise
from agent.judge.policy import RESUMED, History, MeasureNext, Policy, judge
from agent.types import Goal, Measurement, Role, Verdict

CONFIRM = Policy("confirm")


def run(value: float | None, role: Role, commit: str = "c", **fields: Any) -> Measurement:
    return Measurement(commit, role, 0, "cpu", "ok" if value is not None else "crash", value, **fields)


def history(candidate: list[tuple[float | None, Role]], **fields: Any) -> History:
    """Four runs of the incumbent at 5.0, a standard deviation of 1."""
    before = tuple(run(5.0, "calibrate") for _ in range(4))
    base = History("minimize", "old", "new", before, tuple(run(v, r) for v, r in candidate), Noise(1.0, 20))
    return dataclasses.replace(base, **fields)


def wanted(step: Verdict | MeasureNext) -> tuple[str, str]:
    return (step.commit, step.role) if isinstance(step, MeasureNext) else (step.decision, "verdict")


def test_clear_loss_reverts_after_one_run() -> None:
    assert wanted(judge(history([(6.0, "screen")]), CONFIRM)) == ("revert", "verdict")


def test_promising_candidate_repeats_until_decided() -> None:
    seen: list[tuple[float | None, Role]] = [(4.0, "screen")]
    for value in (3.6, 3.8):
        assert wanted(judge(history(seen), CONFIRM)) == ("new", "confirm")
        seen.append((value, "confirm"))
    seen.append((3.0, "confirm"))
    assert wanted(judge(history(seen), CONFIRM)) == ("new", "reserve")


def test_screening_run_alone_never_keeps() -> None:
    assert wanted(judge(history([(-50.0, "screen")]), CONFIRM)) == ("new", "confirm")


def test_vanishing_gain_reverts() -> None:
    assert wanted(judge(history([(3.0, "screen"), (6.9, "confirm")]), CONFIRM)) == ("revert", "verdict")


def test_undecided_candidate_reverts_after_max_runs() -> None:
    runs: list[tuple[float | None, Role]] = [(4.2, "screen"), *[(4.2, "confirm")] * 3]  # type: ignore[list-item]
    assert wanted(judge(history(runs), CONFIRM)) == ("revert", "verdict")


def test_gain_comes_from_held_out_runs() -> None:
    decided = history([(1.0, "screen"), (2.0, "confirm"), (3.5, "reserve")])
    assert wanted(judge(decided, CONFIRM)) == ("old", "reserve")
    runs = (*decided.incumbent_runs, run(4.5, "reserve"))
    verdict = judge(dataclasses.replace(decided, incumbent_runs=runs), CONFIRM)
    assert isinstance(verdict, Verdict)
    assert verdict.decision == "keep"
    assert verdict.gain == pytest.approx(1.0)
    assert verdict.gain_se == pytest.approx(2**0.5)
    assert verdict.value == pytest.approx(2.75)  # without the screening run
    assert verdict.n == 3


def test_incumbents_own_held_out_run_is_not_reused() -> None:
    own = (run(5.0, "confirm"), run(5.0, "reserve"), run(5.0, "incumbent"), run(5.0, "incumbent"))
    decided = history([(1.0, "screen"), (2.0, "confirm"), (3.5, "reserve")], incumbent_runs=own)
    assert wanted(judge(decided, CONFIRM)) == ("old", "reserve")
    fresh = dataclasses.replace(decided, incumbent_runs=(*own, run(4.0, "reserve")))
    verdict = judge(fresh, CONFIRM)
    assert isinstance(verdict, Verdict)
    assert verdict.gain == pytest.approx(0.5)


def test_failed_held_out_run_reverts() -> None:
    runs: list[tuple[float | None, Role]] = [(1.0, "screen"), (2.0, "confirm"), (None, "reserve")]
    assert wanted(judge(history(runs), CONFIRM)) == ("revert", "verdict")


def test_incumbent_with_few_runs_is_repeated_first() -> None:
    few = history([(3.0, "screen")], incumbent_runs=(run(5.0, "confirm"), run(5.0, "reserve")))
    assert wanted(judge(few, CONFIRM)) == ("old", "incumbent")
    loss = history([(9.0, "screen")], incumbent_runs=(run(5.0, "confirm"), run(5.0, "reserve")))
    assert wanted(judge(loss, CONFIRM)) == ("revert", "verdict")


@pytest.mark.parametrize(("value", "decision"), [(4.9999, "keep"), (5.0, "revert"), (5.0001, "revert")])
def test_target_without_noise_keeps_any_gain(value: float, decision: str) -> None:
    assert wanted(judge(history([(value, "screen")], noise=Noise(0.0, 3)), CONFIRM)) == (decision, "verdict")


def test_simpler_code_may_tie_but_not_lose() -> None:
    policy = dataclasses.replace(CONFIRM, keep_simpler=True)
    runs: list[tuple[float | None, Role]] = [(5.1, "screen"), (5.2, "confirm"), (5.0, "confirm"), (5.1, "confirm")]
    assert wanted(judge(history(runs[:1], simpler_by=9), policy)) == ("new", "confirm")
    assert wanted(judge(history(runs, simpler_by=9), policy)) == ("new", "reserve")
    assert wanted(judge(history(runs), policy)) == ("revert", "verdict")
    assert wanted(judge(history([(7.0, "screen")], simpler_by=9), policy)) == ("revert", "verdict")
    assert wanted(judge(history([(5.0, "screen")], simpler_by=9, noise=Noise(0.0, 3)), policy)) == ("keep", "verdict")


def test_confirm_needs_twice_gain_for_memory() -> None:
    values: list[tuple[float | None, Role]] = [(3.3, "screen"), (3.3, "confirm")]
    plain = history(values)
    before = tuple(dataclasses.replace(r, peak_memory_gb=4.0) for r in plain.incumbent_runs)
    after = tuple(dataclasses.replace(r, peak_memory_gb=6.0) for r in plain.candidate_runs)
    assert wanted(judge(plain, CONFIRM)) == ("new", "reserve")
    fat = dataclasses.replace(plain, incumbent_runs=before, candidate_runs=after)
    assert wanted(judge(fat, CONFIRM)) == ("new", "confirm")


@pytest.mark.parametrize(
    ("age", "want"), [(0, ("new", "screen")), (5, ("old", "incumbent")), (RESUMED, ("old", "incumbent"))]
)
def test_old_incumbent_is_measured_before_next_trial(age: int, want: tuple[str, str]) -> None:
    assert wanted(judge(history([], incumbent_age=age), CONFIRM)) == want


def test_runs_before_drift_do_not_count() -> None:
    """The machine drifts by +4: the candidate loses against the old runs and gains against the new ones."""
    drifted = tuple(run(v, "incumbent") for v in (5.0, 5.1, 4.9, 5.0, 9.1, 8.9, 9.0, 9.0))
    first = judge(history([(7.0, "screen")], incumbent_runs=drifted), CONFIRM)
    assert wanted(first) == ("new", "confirm")
    last = judge(history([(10.0, "screen")], incumbent_runs=drifted), CONFIRM)
    assert isinstance(last, Verdict)
    assert "+4" in last.reason


# properties

VALUE = st.floats(-1e3, 1e3).map(lambda x: round(x, 3))
POLICIES = st.builds(
    Policy,
    name=st.sampled_from(["confirm", "margin", "greedy"]),
    keep_simpler=st.booleans(),
    max_runs=st.integers(2, 6),
    incumbent_runs=st.integers(1, 6),
)
NOISES = st.builds(Noise, st.sampled_from([0.0, 0.01, 1.0, 50.0]), st.integers(1, 40))
ROLES: tuple[Role, ...] = ("screen", "confirm", "confirm", "confirm")


@st.composite
def histories(draw: Callable[[st.SearchStrategy[Any]], Any]) -> History:
    after = tuple(run(draw(VALUE), role) for role in ROLES[: draw(st.integers(1, 4))])
    if len(after) > 1 and draw(st.booleans()):
        after += (run(draw(VALUE), "reserve"),)
    before = tuple(run(value, "calibrate") for value in draw(st.lists(VALUE, min_size=1, max_size=6)))
    return History("minimize", "old", "new", before, after, draw(NOISES), draw(st.integers(-3, 3)))


@given(histories(), POLICIES)
def test_same_input_same_decision(seen: History, policy: Policy) -> None:
    assert judge(seen, policy) == judge(dataclasses.replace(seen), policy)


@given(histories(), POLICIES, st.floats(0, 100))
def test_better_candidate_never_loses_a_keep(seen: History, policy: Policy, by: float) -> None:
    better = tuple(dataclasses.replace(r, value=(r.value or 0.0) - by) for r in seen.candidate_runs)
    order = {"revert": 0, "confirm": 1, "incumbent": 1, "reserve": 2, "keep": 3}

    def rank(step: Verdict | MeasureNext) -> int:
        return order[step.role if isinstance(step, MeasureNext) else step.decision]

    before, after = judge(seen, policy), judge(dataclasses.replace(seen, candidate_runs=better), policy)
    assert rank(before) == 0 or rank(after) > 0


@given(histories(), POLICIES)
def test_maximise_mirrors_minimise(seen: History, policy: Policy) -> None:
    def negated(runs: tuple[Measurement, ...]) -> tuple[Measurement, ...]:
        return tuple(dataclasses.replace(r, value=-(r.value or 0.0)) for r in runs)

    goal: Goal = "maximize"
    mirror = dataclasses.replace(
        seen,
        goal=goal,
        incumbent_runs=negated(seen.incumbent_runs),
        candidate_runs=negated(seen.candidate_runs),
    )
    one, other = judge(seen, policy), judge(mirror, policy)
    assert wanted(one) == wanted(other)
    if isinstance(one, Verdict) and isinstance(other, Verdict):
        assert one.gain == other.gain


@settings(max_examples=200)
@given(st.data(), POLICIES, NOISES, st.booleans(), st.integers(0, 20))
def test_every_trial_ends(data: st.DataObject, policy: Policy, noise: Noise, kept_before: bool, age: int) -> None:
    """Also with failed runs of the incumbent and sudden drift."""
    first: Role = "confirm" if kept_before else "calibrate"
    before, after = [run(data.draw(VALUE), first)], []
    for _ in range(policy.max_runs + 3 * max(policy.incumbent_runs, 3) + 8):
        seen = History("minimize", "old", "new", tuple(before), tuple(after), noise, 1, incumbent_age=age)
        step = judge(seen, policy)
        if isinstance(step, Verdict):
            break
        value = data.draw(st.one_of(st.none(), VALUE) if step.commit == "old" else VALUE)
        (before if step.commit == "old" else after).append(run(value, step.role, step.commit))
        age = 0 if step.commit == "old" else age
    else:
        pytest.fail("no verdict")
    if step.decision == "keep":
        assert any(r.value is not None for r in without_screening_run(tuple(after)))
