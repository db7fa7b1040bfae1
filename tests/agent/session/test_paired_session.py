"""Sessions under ``confirm``: seeds are shared, and the reported gains add up everywhere."""

from __future__ import annotations

from pathlib import Path

import pytest
from sessions import check_whole, resume, start, state_of
from targets import git, make_bowl

from agent.ledger.state import State
from agent.replay.steps import steps_of_branch, steps_of_run
from agent.repo.clean_branch import make_branch
from agent.repo.repo import Repo
from agent.review.data.attempt import details_of
from agent.review.data.branch import steps_of
from agent.review.data.edit_runs import seed_pairs_of
from agent.review.data.export import export_json
from agent.review.data.night import night_of
from agent.review.data.status import status_json
from agent.review.data.summary import summarize
from agent.review.data.tables import source_rows
from agent.review.report.report import write_report
from agent.rundir.directory import RunDirectory
from agent.rundir.results import read_tsv
from agent.target import load_target
from agent.trial.seeds import session_seed

SETTINGS = {"policy": "confirm", "calibrate": 4, "seed": 3, "trials": 12}


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunDirectory, Path]:
    root = tmp_path_factory.mktemp("paired")
    target = make_bowl(root / "target")
    return start(target, root / "runs", **SETTINGS), target


@pytest.fixture(scope="module")
def state(night: tuple[RunDirectory, Path]) -> State:
    found = state_of(night[0])
    assert found.kept, "twelve trials on a slope kept nothing"
    return found


def test_all_commits_run_under_seeds_of_the_session(state: State) -> None:
    seeds = {run.seed for runs in state.runs.values() for run in runs}
    assert seeds <= {session_seed(3, k) for k in range(20)}


def test_first_run_of_each_trial_is_paired(state: State) -> None:
    verdicts = [record.verdict for record in state.finished if record.runs and record.status == "ok"]
    assert all(verdict and verdict.pairs >= 1 for verdict in verdicts)


def test_gains_add_up_in_branch_and_summary(state: State) -> None:
    gains = [record.verdict.gain or 0.0 for record in state.kept if record.verdict]
    summary = summarize(state)
    assert summary.gain == pytest.approx(sum(gains))
    assert summary.baseline is not None
    assert summary.best is not None
    assert summary.best.value == pytest.approx(summary.baseline.value - sum(gains))
    last = state.kept[-1].verdict
    assert last is not None
    assert last.value == pytest.approx(summary.best.value)


def test_one_gain_in_all_outputs(night: tuple[RunDirectory, Path], state: State) -> None:
    """A kept trial has one gain, and its two values differ by it, wherever they are shown."""
    directory, target = night
    data = night_of(state, {})
    replayed = {step.trial: step for step in steps_of_run(state)}
    by_git = {
        step.trial: step for step in steps_of_branch(Repo(target), load_target(target)[0], "autoresearch/night", {})
    }
    rows = {row.commit: row.value for row in read_tsv(directory.results)}
    exported = {row["trial"]: row for row in export_json(state)["attempts"]}
    make_branch(state, Repo(target), "night", name="clean", when=1)
    make_branch(state, Repo(target), "night", name="squashed", squash=True, when=1)
    messages = git(target, "log", "--reverse", "--format=%B%x00", f"{state.baseline}..clean").split("\0")
    squashed = " ".join(git(target, "log", "-1", "--format=%B", "squashed").split())
    for record, step, message in zip(state.kept, data.steps[1:], messages, strict=False):
        verdict = record.verdict
        assert verdict is not None
        assert verdict.value is not None
        assert verdict.best_before is not None
        assert verdict.gain == pytest.approx(verdict.best_before - verdict.value)
        change = f"{verdict.best_before:.4f} → {verdict.value:.4f}, as the code itself reports it"
        assert f"{change}: a gain of {verdict.gain:.4f}" in " ".join(message.split())
        assert step.value == verdict.value
        assert replayed[record.number].gain == verdict.gain
        assert by_git[record.number].gain == pytest.approx(verdict.gain, abs=1e-6)
        assert rows[str(record.candidate)[:7]] == pytest.approx(verdict.value, abs=1e-6)
        assert exported[record.number]["gain"] == verdict.gain
    status = status_json(data)
    total = sum(record.verdict.gain or 0.0 for record in state.kept if record.verdict)
    assert status["gain"] == pytest.approx(total)
    assert data.steps[-1].gain == pytest.approx(total)
    assert sum(row.gain for row in source_rows(data.attempts)) == pytest.approx(total)
    if len(state.kept) > 1:
        assert f"In total val_bpb {status['baseline']:.4f} → {status['best']:.4f}" in squashed


def test_trailers_name_pairs_and_probability(night: tuple[RunDirectory, Path], state: State) -> None:
    text = git(night[1], "log", "-1", "--format=%(trailers:only,unfold)", str(state.kept[-1].accepted))
    found = dict(line.split(": ", 1) for line in text.splitlines())
    assert int(found["Pairs"]) >= 1
    assert float(found["Probability"]) > 0.9


def test_show_names_the_parents_value_under_the_same_seed(night: tuple[RunDirectory, Path], state: State) -> None:
    details = details_of(state.kept[-1], state, night[0].path)
    assert details.parent_values.keys() & {run.seed for run in details.attempt.record.runs}


def test_interrupted_night_resumes_to_the_same_verdicts(tmp_path: Path, state: State) -> None:
    target = make_bowl(tmp_path / "target")
    start(target, tmp_path / "runs", **{**SETTINGS, "trials": 5})
    directory = resume(tmp_path / "runs", trials=12)
    again = state_of(directory)
    assert [record.verdict for record in again.records] == [record.verdict for record in state.records]
    check_whole(directory, target, 12)


def test_report_draws_the_reported_values(state: State) -> None:
    steps = steps_of(state)
    assert [step.value for step in steps[1:]] == [record.verdict.value for record in state.kept if record.verdict]


def test_report_has_one_line_for_each_pair(night: tuple[RunDirectory, Path], state: State) -> None:
    found = seed_pairs_of(state)
    assert {edit.trial for edit in found if edit.kept} == set(state.keeps)
    for edit in found:
        record = state.of_trial(edit.trial)
        assert record is not None
        assert {after for _, after in edit.pairs} <= set(record.values)
    page = write_report(night[0].path).read_text()
    wide = page[page.index("chart pairs") :].split("</svg>", 1)[0]
    assert wide.count("pair keep-line") == sum(len(edit.pairs) for edit in found if edit.kept)
