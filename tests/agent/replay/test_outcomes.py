"""How a replay compares recorded with replayed runs, and how it shows the result."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from agent.errors import UsageError
from agent.judge.gain import Gain
from agent.judge.noise import Noise
from agent.replay.exact import header_differences, header_of
from agent.replay.outcomes import Finding, Result, compare, noise_of
from agent.replay.plan import OBSTACLE, Comparison, Plan, cost_of, stages_of_replay
from agent.replay.progress import ReplayProgress
from agent.replay.shown import terminal
from agent.replay.steps import Step
from agent.replay.view import plan_words, shown_of
from agent.types import Measurement

gains = st.floats(-1, 1, allow_nan=False)
errors = st.floats(1e-6, 1)


def run_of(commit: str, value: float, seed: int = 1, seconds: float = 0.0, device_type: str = "") -> Measurement:
    return Measurement(
        commit, "replay", seed, "cpu", "ok", value, seconds={"training": seconds}, device_type=device_type
    )


@given(gains, errors, gains, errors, st.integers(1, 40))
def test_outcome_is_monotonic_in_gain(gain: float, se: float, recorded: float, recorded_se: float, dof: int) -> None:
    step = Step(1, "c", "s", recorded=1.0, gain=recorded, gain_se=recorded_se)
    outcome, reason = compare(step, Gain(gain, se, 3, 3), dof)
    assert reason
    if outcome == "reproduced":
        assert gain > 0
        assert compare(step, Gain(gain + 1.0, se, 3, 3), dof)[0] == "reproduced"
    if outcome == "not reproduced":
        assert compare(replace(step, gain=recorded + 1.0), Gain(gain, se, 3, 3), dof)[0] == "not reproduced"
        assert compare(step, Gain(gain - 1.0, se, 3, 3), dof)[0] == "not reproduced"


@given(gains, st.one_of(st.none(), gains))
def test_outcome_without_noise_is_sign_of_gain(gain: float, recorded: float | None) -> None:
    outcome, _ = compare(Step(1, "c", "s", gain=recorded), Gain(gain, 0.0, 3, 3), 3)
    assert outcome == ("reproduced" if gain > 0 else "not reproduced")


def test_outcome_with_unknown_noise_is_unknown() -> None:
    assert compare(Step(1, "c", "s", gain=0.1), Gain(0.1, None, 1, 1), 0)[0] == "cannot tell"


def plan_of(*steps: Step, cuts: Sequence[Comparison] = ()) -> Plan:
    budget = "65536 tokens"
    return Plan("night", 3, "minimize", "val_bpb", budget, stages_of_replay(steps, "minimize", budget, cuts))


def test_recorded_noise_counts_only_under_same_budget() -> None:
    plan = plan_of(Step(0, "a", "baseline", runs=(run_of("a", 1.0), run_of("a", 1.2, 2))))
    replayed = {"a": [run_of("a", 1.0, 3), run_of("a", 1.4, 4)]}
    assert noise_of(plan, replayed).dof == 2
    assert noise_of(replace(plan, same_budget=False), replayed).dof == 1


def test_noise_is_pooled_within_device_types() -> None:
    runs = [run_of("a", value, device_type=kind) for kind, value in (("H100", 1.0), ("H100", 1.2), ("A100", 3.0))]
    noise = noise_of(plan_of(Step(0, "a", "baseline")), {"a": runs})
    assert noise.dof == 1
    assert noise.sd == pytest.approx(0.02**0.5)


def test_cost_is_estimated_from_recorded_seconds() -> None:
    steps = [Step(k, str(k), "s", runs=(run_of(str(k), 1.0, seconds=600.0),)) for k in range(3)]
    plan = plan_of(*steps)
    found = cost_of(plan, {}, 1)
    assert (found.runs, found.commits, found.seconds) == (9, 3, 5400.0)
    assert cost_of(plan, {}, 3).seconds == 1800.0
    assert cost_of(plan, {"0": [run_of("0", 1.0)] * 3}, 1).runs == 6
    assert math.isnan(cost_of(replace(plan, same_budget=False), {}, 1).seconds)
    head, last = steps[2].bare, Step(1002, "1", "without the last edit: the commit before it")
    cuts = (Comparison(steps[1].bare, head, head, OBSTACLE), Comparison(head, last, head))
    assert cost_of(plan_of(*steps, cuts=cuts), {}, 1).runs == 9
    assert "1 h 30 min" in plan_words(plan, found)


def test_progress_shows_value_of_the_followed_run() -> None:
    recorded = (run_of("c", 1.25, 1), run_of("c", 1.75, 2))
    step = Step(0, "c", "baseline", recorded=1.5, runs=recorded)
    output = io.StringIO()
    view = ReplayProgress(Console(file=output), "val_bpb", 2)
    for run in (recorded[0], replace(recorded[0], seed=3)):  # one with a recorded seed, one with a fresh seed
        view.measured(step, 1, 2, run)
    assert re.findall(r"recorded (\S+)\)", output.getvalue()) == ["1.2500", "1.5000"]


@pytest.mark.parametrize("width", [80, 118])
def test_table_shows_whole_numbers_on_narrow_terminal(width: int) -> None:
    step = Step(1, "0123456789" * 4, "MATRIX_LR 0.04 → 0.05, and a long list of others", 7, 2.7529, 0.0365, 0.0163)
    finding = Finding(step, "reproduced", "better in the replay too", 0.0393, 0.01, 3, 2.7782)
    console = Console(width=width, file=io.StringIO(), record=True)
    console.print(terminal(shown_of(Result(plan_of(step), ((finding,),), Noise(0.01, 5)))))
    words = console.export_text().split()
    assert {"2.7529", "2.7782", "+0.0365", "0.0163", "+0.0393", "0.0100", "reproduced"} <= set(words)


@pytest.mark.parametrize("first", ["[" * 50_000, '{"threads": ' + "9" * 5000 + "}", "[1]", "", "\udcff"])
def test_trace_with_invalid_header_is_refused(tmp_path: Path, first: str) -> None:
    (tmp_path / "trace.jsonl").write_bytes(first.encode(errors="surrogateescape") + b"\n")
    with pytest.raises(UsageError, match="trace"):
        header_of(tmp_path / "trace.jsonl")


def test_header_differences_hold_no_control_characters() -> None:
    differences = header_differences({"threads": 2}, {"threads": "\x1b[2J\n1", "versions": 3})
    assert differences.isprintable()
    assert differences.startswith("threads: 2 → ")
