"""Sessions under ``stacked``: runs carry several edits, and only trees that ran are published."""

from __future__ import annotations

from io import StringIO
from pathlib import Path
from typing import NamedTuple

import pytest
from ladder import GAINS, SETTINGS, SIGMA, WORTH, check_stacked, make_ladder
from openai_server import OpenAIServer
from rich.console import Console
from sessions import USUAL, nothing, refs_of, resume, start, state_of
from targets import git

from agent.errors import UsageError
from agent.ledger.events import Event, Weighed
from agent.ledger.state import State
from agent.observers.protocol import Observer
from agent.patch.apply import unified_diff
from agent.review.data.attempt import details_of, show_json
from agent.review.data.branch import steps_of
from agent.review.report.report import write_report
from agent.review.terminal.show import show_view
from agent.rundir.directory import RunDirectory
from agent.session import setup as launch
from agent.session.parts import session_policy
from agent.settings import make_settings


class Night(NamedTuple):
    """A night that the user stopped after the third trial and resumed."""

    directory: RunDirectory
    target: Path
    stopped: State


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Night:
    root = tmp_path_factory.mktemp("stacked")
    target, directory = make_ladder(root / "target"), RunDirectory(root / "runs", "night")

    class Stops(Observer):
        def event(self, event: Event, state: State) -> None:
            if isinstance(event, Weighed) and event.trial == 3:
                directory.ask_to_stop(now=False)

    places = {"target": str(target), "runs": str(root / "runs"), "tag": "night"}
    launch.start(make_settings({**USUAL, **SETTINGS, **places}, None), Stops(), nothing)
    stopped = state_of(directory)
    resume(root / "runs")
    return Night(directory, target, stopped)


def test_night_finds_the_gains_and_publishes_them(night: Night) -> None:
    state = check_stacked(night.directory, night.target, len(WORTH))
    assert [record.number for record in state.kept] == GAINS
    assert state.ended == f"all {len(WORTH)} trials done"
    text = git(night.target, "show", f"{state.head}:train.py")
    assert [f"S{k} = 1" in text for k in range(len(WORTH))] == [worth > 0 for worth in WORTH]
    for record in state.kept:
        assert record.verdict is not None
        error = abs((record.verdict.gain or 0.0) - WORTH[record.number - 1] * SIGMA)
        assert error < 4 * (record.verdict.gain_se or 0.0)


def test_stopped_night_keeps_undecided_edits_open(night: Night) -> None:
    assert night.stopped.ended == "stopped by the user"
    assert night.stopped.open
    assert not set(night.stopped.open) & set(night.stopped.observed)


def test_show_tells_what_an_edit_is_worth(night: Night) -> None:
    state = state_of(night.directory)
    details = details_of(state.records[GAINS[0] - 1], state, night.directory.path)
    shown = show_json(details)
    assert shown["weight"]["probability"] > 0.9
    assert len(shown["stacked"]) == details.attempt.runs == shown["weight"]["runs_in"]
    assert any(run["others"] for run in shown["stacked"])
    console = Console(width=100, record=True, file=StringIO())
    console.print(show_view(details))
    text = console.export_text()
    assert "without it" in text
    assert "with trials" in text


def test_report_lists_runs_and_worth_of_each_edit(night: Night) -> None:
    html = write_report(night.directory.path).read_text()
    state = state_of(night.directory)
    assert 'id="stacked"' in html
    assert html.count("<rect") >= sum(len(stack.edits) for stack in state.stacks)


def test_gains_on_the_branch_add_up(night: Night) -> None:
    state = state_of(night.directory)
    gains = [record.verdict.gain or 0.0 for record in state.kept if record.verdict]
    steps = steps_of(state)
    assert [step.trial for step in steps[1:]] == [record.number for record in state.kept]
    assert steps[-1].gain == pytest.approx(sum(gains))


def test_runs_carry_several_edits_and_are_explained(night: Night) -> None:
    state = state_of(night.directory)
    assert max(len(stack.edits) for stack in state.stacks) >= 3
    weight = state.weights[GAINS[0]]
    record = state.records[GAINS[0] - 1]
    assert weight.runs_in == len(record.stacks)
    assert weight.mean_in == pytest.approx(sum(run.value or 0.0 for run in record.stacks) / len(record.stacks))
    assert weight.mean_out is not None


def test_working_head_holds_likely_edits(night: Night) -> None:
    state, target = state_of(night.directory), night.target
    assert "work" in refs_of(target)
    parents = [git(target, "show", f"{record.proposal.parent}:train.py") for record in state.records]
    assert any("= 1" in text for text in parents), "no edit was proposed on top of a likely one"


SHORT = {**SETTINGS, "calibrate": 3}


def test_failing_edits_are_dropped_and_rivals_share_no_run(tmp_path: Path) -> None:
    more = {
        "crash": "-import random\n+import random\n+import boom",
        "define": "-ON = [S0]\n+BONUS = 0\n+ON = [S0]",
        "rival": "-S0 = 0  # switch 0\n+S0 = 2  # switch 0",
    }
    target = make_ladder(tmp_path / "target", (4,), more)
    directory = start(target, tmp_path / "runs", **{**SHORT, "trials": 4})
    state = check_stacked(directory, target, 4)
    assert [record.status for record in state.records] == ["ok", "crash", "ok", "ok"]
    assert "boom" in (state.records[1].verdict or state.baseline_record.verdict).reason  # type: ignore[union-attr]
    assert not any({1, 4} <= set(stack.edits) for stack in state.stacks)
    assert state.records[1].stacks[-1].status == "crash"


def test_target_without_noise_compares_single_edits(tmp_path: Path) -> None:
    target = make_ladder(tmp_path / "target", (4, -3), noise=0.0)
    state = state_of(start(target, tmp_path / "runs", **{**SHORT, "trials": 2}))
    assert not state.stacks
    assert [record.decision for record in state.records] == ["keep", "revert"]


def test_points_of_search_methods_run_alone() -> None:
    said: list[str] = []
    settings = make_settings({"policy": "stacked", "proposer": "cma-es"}, None)
    assert session_policy(settings, said.append).name == "confirm"
    assert len(said) == 1


def test_resume_cannot_change_to_another_policy(night: Night) -> None:
    with pytest.raises(UsageError, match="stacked"):
        resume(night.directory.path.parent, policy="confirm")


def test_model_sees_likely_edits_and_outcomes(tmp_path: Path) -> None:
    target = make_ladder(tmp_path / "target", (5, -5, 0))
    text = (target / "train.py").read_text()
    replies = [
        f"Subject: Switch {k}\n\n```diff\n{unified_diff(text, text.replace(f'S{k} = 0', f'S{k} = 1'), 'train.py')}```\n"
        for k in range(3)
    ]
    with OpenAIServer(replies) as server:
        start(target, tmp_path / "runs", **{**SHORT, "proposer": "code", "trials": 3}, llm_base_url=server.base_url)
    directory = RunDirectory(tmp_path / "runs", "night")
    state = check_stacked(directory, target, 3)
    assert [record.decision for record in state.records] == ["keep", "revert", "revert"]
    prompt = (directory.path / state.records[2].proposal.transcript / "prompt.md").read_text()
    assert "reverted, val_bpb" in prompt
    assert "#1 Switch 0" in prompt


def test_single_trial_is_run_and_decided(tmp_path: Path) -> None:
    target = make_ladder(tmp_path / "target", (900,))
    state = check_stacked(start(target, tmp_path / "runs", **{**SHORT, "trials": 1}), target, 1)
    assert state.records[0].decision == "keep"
