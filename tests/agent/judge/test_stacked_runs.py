"""The fold of a stacked session's events."""

from __future__ import annotations

import pytest

from agent.judge.stacked_runs import StackedRuns
from agent.ledger.events import Event, Judged, Measured, SessionStarted, Stacked, Weighed
from agent.types import Measurement, Verdict

CALIBRATION = [1.000, 1.002, 0.999, 1.003, 0.998]


def measured(commit: str, seed: int, value: float | None, weights: str = "", role: str = "stack") -> Measured:
    status = "ok" if value is not None else "crash"
    run = Measurement(commit, role, seed, "cpu", status, value, reason="boom", initial_hash=weights)  # type: ignore[arg-type]
    return Measured(trial=1, measurement=run)


def planned(number: int, edits: tuple[int, ...], new: tuple[int, ...] = (), seed: int = 0) -> Stacked:
    return Stacked(trial=1, commit=f"c{number}", ref=f"stack/{number}", base="b", edits=edits, new=new, seed=seed)


def started() -> list[Event]:
    runs = [measured("b", seed, value, role="calibrate") for seed, value in enumerate(CALIBRATION)]
    return [SessionStarted(baseline="b"), *runs]


def judged(trial: int, decision: str, gain: float) -> Judged:
    return Judged(trial=trial, verdict=Verdict(decision, 1.0, 1.0, gain, 0.001, 1, 1, 4, ""))  # type: ignore[arg-type]


def test_runs_count_for_the_edits_that_they_carry() -> None:
    found = StackedRuns().catch_up(
        [*started(), planned(1, (1,), (1,)), measured("c1", 0, 0.99), planned(2, (2,), (2,)), measured("c2", 0, 1.0)]
    )
    weights = {weight.trial: weight for weight in found.weights}
    assert (weights[1].runs_in, weights[1].runs_out) == (1, 1)
    assert (weights[2].runs_in, weights[2].runs_out) == (1, 0)
    assert (weights[1].mean_in, weights[1].mean_out) == (0.99, 1.0)


def test_last_run_is_unweighed_until_its_event() -> None:
    found = StackedRuns().catch_up([*started(), planned(1, (1,), (1,)), measured("c1", 0, 0.99)])
    assert found.unweighed
    events = [*started(), planned(1, (1,), (1,)), measured("c1", 0, 0.99), Weighed(trial=1, edits=())]
    assert not found.catch_up(events).unweighed


def test_edit_that_fails_beside_others_runs_once_more_alone() -> None:
    events = [*started(), planned(1, (1, 2), (1, 2)), measured("c1", 0, None)]
    found = StackedRuns().catch_up(events)
    assert found.alone == {1, 2}
    assert not found.failed
    events += [planned(2, (1,), (1,)), measured("c2", 0, None), planned(3, (2,), (2,)), measured("c3", 0, 1.0)]
    found.catch_up(events)
    assert found.failed == {1: "crash: boom"}
    assert list(found.edits) == [2]


def test_edit_with_equal_weights_under_two_seeds_pins_the_seed() -> None:
    events = [
        *started(),
        planned(1, (1, 2), (1, 2), seed=0), measured("c1", 0, 0.99, "same"),
        planned(2, (1, 2), seed=1), measured("c2", 1, 0.99, "same"),
    ]  # fmt: skip
    found = StackedRuns().catch_up(events)
    assert [found.pins_seed(trial) for trial in (1, 2)] == [None, None], "either may be the one"
    found.catch_up([*events, planned(3, (1,), seed=2), measured("c3", 2, 0.99, "same")])
    assert [found.pins_seed(trial) for trial in (1, 2)] == [True, None]
    found.catch_up([*events, planned(3, (1,), seed=2), measured("c3", 2, 0.99, "same"), judged(1, "revert", 0.0)])
    assert found.pins_seed(2) is False


@pytest.mark.parametrize("decision", ["keep", "revert"])
def test_run_begun_before_a_verdict_still_counts(decision: str) -> None:
    """A run that lacks an edit kept since, or has one dropped since, is corrected by its gain."""
    events = [*started()]
    for k in range(6):
        edits = (1, 2) if k % 2 else (2,)
        new = (1, 2) if k == 1 else (2,) if k == 0 else ()
        events += [planned(k, edits, new, k), measured(f"c{k}", k, 1.0 - 0.01 * (k % 2))]
    before = StackedRuns().catch_up(events)
    late = planned(9, (2,) if decision == "keep" else (1, 2), seed=7)
    value = 1.0 if decision == "keep" else 0.99
    after = StackedRuns().catch_up([*events, late, judged(1, decision, 0.01), measured("c9", 7, value)])
    assert after.worth(2).gain == pytest.approx(before.worth(2).gain, abs=0.003)
    assert not after.pending
