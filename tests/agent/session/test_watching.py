"""Sessions that stop runs: a target prints its loss curve, which foretells its value."""

from __future__ import annotations

from pathlib import Path

import pytest
from sessions import USUAL, resume, start, state_of
from targets import TOML, TRAIN, make_bowl

from agent.judge import hopeless
from agent.ledger import journal
from agent.ledger.state import State
from agent.repo.repo import Repo
from agent.review.data.summary import summarize
from agent.rundir.directory import RunDirectory
from agent.session.parts import block_proposer
from agent.settings import make_settings
from agent.target import load_target

CURVE = """import json

for step in range(20):
    loss = 3.0 - 0.05 * step + (step > 0) * (value() - 3.0) * 2
    print(json.dumps({"event": "step", "step": step, "progress": step / 20, "loss": loss}), flush=True)
noise ="""
SETTINGS = {"proposer": "random", "policy": "confirm", "calibrate": 4, "seed": 5, "trials": 22}


@pytest.fixture(scope="module", autouse=True)
def little_evidence() -> object:
    """Few pairs are enough, so that a short session stops runs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hopeless, "EVIDENCE", 6)
        yield


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bowl(tmp_path_factory.mktemp("curves") / "target", TRAIN.replace("\nnoise =", CURVE))


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory, target: Path) -> RunDirectory:
    return start(target, tmp_path_factory.mktemp("runs"), **SETTINGS)


@pytest.fixture(scope="module")
def state(night: RunDirectory) -> State:
    return state_of(night)


def test_hopeless_runs_are_stopped_with_a_prediction(state: State) -> None:
    stopped = [record for record in state.finished if record.status == "stopped"]
    assert stopped
    for record in stopped:
        (run,) = record.runs
        assert run.value is None
        assert run.prediction is not None
        assert run.prediction.progress in hopeless.MILESTONES[1:]
        assert record.verdict is not None
        assert record.verdict.decision == "revert"
        assert record.verdict.gain == run.prediction.gain < 0


def test_only_first_runs_of_candidates_are_stopped(state: State) -> None:
    roles = {run.role for runs in state.runs.values() for run in runs if run.prediction}
    assert roles == {"screen"}


def test_evidence_comes_before_the_first_stop(state: State) -> None:
    first = next(record.number for record in state.records if record.status == "stopped")
    finished = [run for record in state.records[: first - 1] for run in record.runs if run.value is not None]
    assert len(finished) >= hopeless.EVIDENCE


def test_summary_counts_stopped_runs_as_reverted(state: State) -> None:
    summary = summarize(state)
    assert summary.stopped.runs == sum(record.status == "stopped" for record in state.finished)
    assert summary.failed == 0
    assert summary.kept + summary.reverted == len(state.finished)


def test_results_list_stopped_runs_with_predicted_values(night: RunDirectory, state: State) -> None:
    record = next(record for record in state.records if record.status == "stopped")
    line = (night.path / "results.tsv").read_text().splitlines()[record.number + 1]
    assert record.runs[0].prediction is not None
    assert line.split("\t")[1] == f"{record.runs[0].prediction.value:.6f}"
    assert line.split("\t")[3] == "discard"


def test_search_method_observes_the_predicted_value(night: RunDirectory, target: Path, state: State) -> None:
    loaded, _ = load_target(target)
    given = make_settings({**USUAL, "target": str(target), "proposer": "random", "seed": 5}, None)
    proposer = block_proposer(given, loaded, Repo(target).read(state.baseline, loaded.path), None)
    proposer.replay(journal.read(night.ledger))
    values = [observation.value for observation in proposer.method.observations]  # type: ignore[attr-defined]
    assert None not in values
    record = next(record for record in state.records if record.status == "stopped")
    assert record.runs[0].prediction is not None
    assert values[record.number] == record.runs[0].prediction.value


def test_interrupted_night_stops_the_same_runs(tmp_path: Path, target: Path, state: State) -> None:
    start(target, tmp_path, tag="again", **{**SETTINGS, "trials": 12})
    again = state_of(resume(tmp_path, tag="again", trials=22))
    assert [record.verdict for record in again.records] == [record.verdict for record in state.records]


def test_option_finishes_every_run(tmp_path: Path, target: Path) -> None:
    found = state_of(start(target, tmp_path, tag="all", **SETTINGS, stop_hopeless=False))
    assert {record.status for record in found.finished} == {"ok"}


def test_edit_of_the_loss_is_finished(tmp_path: Path) -> None:
    train, toml = (text.replace("RATE", "LOSS_RATE") for text in (TRAIN.replace("\nnoise =", CURVE), TOML))
    found = state_of(start(make_bowl(tmp_path / "target", train, toml), tmp_path / "runs", **SETTINGS))
    assert {record.status for record in found.finished} == {"ok"}
