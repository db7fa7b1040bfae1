"""Trackers read back: real event files of TensorBoard, a real database of MLflow, a tracker that is down."""

from __future__ import annotations

import importlib.util
import json
import shutil
import socket
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import budgets
import pytest
from nights import write_night
from sessions import resume, start, state_of
from targets import make_bowl

from agent.cli.entry import main
from agent.cli.parser import build_parser
from agent.errors import EnvironmentProblem, UsageError
from agent.ledger.events import Observed
from agent.ledger.journal import read
from agent.ledger.state import State, fold
from agent.llm.api_keys import scrub
from agent.observers.trackers import beside, follow
from agent.observers.trackers.entries import About, Entry, about, entry_of, point_of
from agent.observers.trackers.follow import Follower, send_run
from agent.observers.trackers.track import Track, parse_tracks
from agent.review.data.summary import summarize
from agent.rundir.directory import RunDirectory


@pytest.fixture
def night(tmp_path: Path) -> RunDirectory:
    """A finished run of six trials."""
    write_night(tmp_path / "runs" / "jun12", trials=6, seed=3)
    return RunDirectory(tmp_path / "runs", "jun12")


class Read:
    """What a folder of TensorBoard holds: (tag, step) → value, each as often as it is there."""

    def __init__(self, folder: Path):
        from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
        from tensorboard.util.tensor_util import make_ndarray

        self.values: dict[tuple[str, int], Any] = {}
        self.count: Counter[tuple[str, int]] = Counter()
        for file in sorted(folder.glob("events.*")):
            for event in EventFileLoader(str(file)).Load():
                for value in event.summary.value:
                    array = make_ndarray(value.tensor)
                    found = array.item() if array.size else None  # hyperparameters are in the metadata
                    self.values[value.tag, event.step] = found.decode() if isinstance(found, bytes) else found
                    self.count[value.tag, event.step] += 1

    def series(self, tag: str) -> list[float]:
        return [value for (name, _), value in sorted(self.values.items()) if name == tag]


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine under load, a tracker that yields to training starts late; failed attempts need no pause."""
    monkeypatch.setattr(beside, "AT_EXIT", budgets.PROGRAM_SECONDS)
    monkeypatch.setattr(follow, "time", SimpleNamespace(sleep=lambda _seconds: None))


def session_folder(place: Path) -> Path:
    (folder,) = place.iterdir()
    return folder


def test_session_writes_event_files(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    target = make_bowl(tmp_path / "target")
    directory = start(target, tmp_path / "runs", trials=4, policy="greedy", track=f"tensorboard:{tmp_path / 'board'}")
    state, folder = state_of(directory), session_folder(tmp_path / "board")
    assert folder.name == about(state).id
    assert {path.name for path in folder.iterdir() if path.is_dir()} == {f"{k:04d}" for k in range(5)}
    for record in state.finished:
        read = Read(folder / f"{record.number:04d}")
        assert record.verdict is not None
        assert read.values["value", record.number] == pytest.approx(record.verdict.value, rel=1e-6)
        assert read.values["gain", record.number] == pytest.approx(record.verdict.gain, rel=1e-5)
        assert read.values["diff", 0].replace("    ", "", 1) in record.proposal.diff.replace("\n", "\n    ")
        assert set(read.count.values()) == {1}
    summary = summarize(state)
    assert summary.best is not None
    series = Read(folder)
    assert len(series.series("session/trials")) == 5
    assert series.series("session/best_value")[-1] == pytest.approx(summary.best.value, rel=1e-6)
    assert "| policy | greedy |" in series.values["session", 0]
    assert "WARNING" not in directory.log.read_text()


def test_resume_continues_the_same_tracker_session(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    target = make_bowl(tmp_path / "target")
    directory = start(target, tmp_path / "runs", trials=2, policy="greedy", track="tensorboard")
    resume(tmp_path / "runs", trials=4)
    folder = session_folder(tmp_path / "runs" / "tensorboard")
    assert len([path for path in folder.iterdir() if path.is_dir()]) == 5
    series = Read(folder)
    assert len(series.series("session/trials")) == 5
    assert set(series.count.values()) == {1}
    assert directory.read_settings()["run"]["track"] == f"tensorboard:{tmp_path / 'runs' / 'tensorboard'}"


def test_export_sends_what_a_session_sends(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("tensorboard")
    target, board = make_bowl(tmp_path / "target"), tmp_path / "later"
    start(target, tmp_path / "runs", trials=2, policy="greedy", track="tensorboard")
    for _ in range(2):  # the second time, nothing is missing
        assert main(["export", "night", "--runs", str(tmp_path / "runs"), "--track", f"tensorboard:{board}"]) == 0
    said = capsys.readouterr()
    assert said.out == ""
    assert "3 trials" in said.err
    live, later = session_folder(tmp_path / "runs" / "tensorboard"), session_folder(board)
    assert live.name == later.name
    for name in ("0000", "0001", "0002", "."):
        first, second = Read(live / name), Read(later / name)
        assert first.values == second.values
        assert first.count == second.count


def test_cut_off_event_files_are_completed(night: RunDirectory, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    track = Track("tensorboard", str(tmp_path / "board"))
    assert send_run(night.path, track) == (7, "")
    folder = session_folder(tmp_path / "board")
    before = {name: Read(folder / name).values for name in ("0006", ".")}
    shutil.rmtree(folder / "0006")
    (folder / "0006").mkdir()
    (series,) = folder.glob("events.*")
    series.write_bytes(series.read_bytes()[:-300])
    assert send_run(night.path, track) == (7, "")
    assert Read(folder / "0006").values == before["0006"]
    assert Read(folder).values == before["."]


def test_trial_that_cannot_be_written_does_not_hold_up_others(night: RunDirectory, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    track, state = Track("tensorboard", str(tmp_path / "board")), state_of(night)
    folder = tmp_path / "board" / about(state).id
    folder.mkdir(parents=True)
    (folder / "0002").touch()  # in the place of its folder
    held, problem = send_run(night.path, track)
    assert held == 6
    assert "FileExistsError" in problem
    assert len(Read(folder).series("session/trials")) == 7
    (folder / "0002").unlink()
    assert send_run(night.path, track) == (7, "")
    assert Read(folder).count["session/trials", 6] == 1


@dataclass
class Forgetful:
    """A tracker that begins its series again at each opening, as that of wandb does, and fails once."""

    fails: list[int]
    trials: set[int] = field(default_factory=set)
    held: set[int] = field(default_factory=set)
    points: int = 0
    steps: list[int] = field(default_factory=list)

    def open(self, _session: About) -> Forgetful:
        self.held, self.points, self.steps = set(self.trials), 0, []
        return self

    def trial(self, entry: Entry) -> None:
        if entry.number in self.fails:
            self.fails.remove(entry.number)
            raise ConnectionError("it went away")
        self.trials.add(entry.number)

    def point(self, step: int, time: float, figures: Mapping[str, float]) -> None:
        assert figures["trials"] == step
        self.steps.append(step)

    def close(self) -> None:
        return


def test_series_is_whole_after_a_failure(night: RunDirectory) -> None:
    tracker = Forgetful(fails=[4])
    news: list[int | str] = []
    follower = Follower(night.path, cast(Track, tracker), lambda _seconds: True, news.append)
    follower.look()
    assert tracker.trials == set(range(7))
    assert tracker.steps == list(range(7))
    assert news == [1, 2, 3, 4, "ConnectionError: it went away", 5, 6, 7]


def test_mlflow_holds_runs_under_a_parent(night: RunDirectory, tmp_path: Path) -> None:
    pytest.importorskip("mlflow")
    from mlflow import MlflowClient

    track, state = Track("mlflow", str(tmp_path / "flow")), state_of(night)
    assert send_run(night.path, track) == (7, "")
    client = MlflowClient(f"sqlite:///{tmp_path}/flow/mlflow.db")
    (experiment,) = [found for found in client.search_experiments() if found.name == "overnight"]

    def runs() -> dict[str, Any]:
        found = {run.data.tags["overnight.trial"]: run for run in client.search_runs([experiment.experiment_id])}
        assert len(found) == 8
        return found

    first = runs()
    parent = first["session"]
    assert parent.data.params["policy"] == "confirm"
    assert [m.step for m in client.get_metric_history(parent.info.run_id, "trials")] == list(range(7))
    for record in state.finished:
        run, entry = first[str(record.number)], entry_of(record.number, state, night.path)
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert run.data.params == {name: str(value) for name, value in (record.proposal.params or {}).items()}
        assert {name: run.data.tags[name] for name in entry.labels} == entry.labels
        assert {name: run.data.metrics[name] for name in entry.figures} == pytest.approx(entry.figures)
        if entry.curve:
            curve = client.get_metric_history(run.info.run_id, "loss")
            assert [(m.step, m.value) for m in curve] == [(p.step, p.loss) for p in entry.curve]
        if entry.diff:
            assert Path(run.info.artifact_uri, "edit.diff").read_text() == entry.diff
    client.update_run(first["6"].info.run_id, "RUNNING")  # as after a kill in the middle of a trial
    assert send_run(night.path, track) == (7, "")
    second = runs()
    assert {number for number in first if first[number].info.run_id != second[number].info.run_id} == {"6"}
    assert {run.info.status for run in second.values()} == {"FINISHED"}


def test_tracker_that_is_down_does_not_stop_session(tmp_path: Path) -> None:
    pytest.importorskip("mlflow")
    with socket.socket() as closed:  # bound, but it does not listen
        closed.bind(("127.0.0.1", 0))
        place = f"mlflow:http://127.0.0.1:{closed.getsockname()[1]}"
        directory = start(make_bowl(tmp_path / "target"), tmp_path / "runs", trials=2, policy="greedy", track=place)
        assert main(["export", "night", "--runs", str(tmp_path / "runs"), "--track", place]) == 3
    assert len(state_of(directory).finished) == 2
    warnings = [line for line in directory.log.read_text().splitlines() if "overnight.track" in line]
    assert "tried again" in warnings[0]
    assert "lacks 3 of 3 trials" in warnings[1]
    assert f"--track {place}" in warnings[1]
    assert len(warnings) == 2


WRONG = (
    "tensorbord", "mlflow,mlflow:x", "tensorboard:http://127.0.0.1", ",wandb:s3://b", ":x", "mlflow:ftp://x",
    "mlflow:http://host:99999", "mlflow:http:///x",
)  # fmt: skip


@pytest.mark.parametrize("setting", WRONG)
def test_wrong_track_is_refused(setting: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: importlib.util.spec_from_file_location("m", "/m.py"))
    with pytest.raises(UsageError, match="--track") as refused:
        parse_tracks(setting, "runs")
    assert str(refused.value).count("trackio") <= 1


def test_dry_run_checks_trackers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("mlflow")
    words = ["run", "--dry-run", "--target", str(make_bowl(tmp_path / "target")), "--runs", str(tmp_path / "runs"),
             "--sandbox", "process", "--proposer", "cma-es", "--policy", "greedy", "--trials", "1"]  # fmt: skip
    assert main([*words, "--track", "mlflow:ftp://x"]) == 2
    assert "does not guarantee" not in capsys.readouterr().err
    with socket.socket() as closed:  # bound, but it does not listen
        closed.bind(("127.0.0.1", 0))
        assert main([*words, "--track", f"mlflow:http://127.0.0.1:{closed.getsockname()[1]}"]) == 0
    assert "does not answer" in capsys.readouterr().err


def test_export_refuses_empty_track(night: RunDirectory, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "jun12", "--runs", str(night.path.parent), "--track", ""]) == 2
    assert "--track" in capsys.readouterr().err


def test_password_in_address_is_refused_and_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: importlib.util.spec_from_file_location("m", "/m.py"))
    with pytest.raises(UsageError, match="MLFLOW_TRACKING_PASSWORD") as refused:
        parse_tracks("mlflow:https://user:hunter2secret@example.org", "runs")
    assert "hunter2secret" not in str(refused.value)
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "hunter2secret")
    assert "hunter2secret" not in scrub("401: wrong password hunter2secret")


def test_missing_package_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "wandb").mkdir()  # a folder that wandb left behind is no package
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    with pytest.raises(EnvironmentProblem, match=r"pip install 'overnight\[wandb\]'"):
        parse_tracks("wandb", "runs")


def test_repeated_option_is_one_list() -> None:
    words = ["run", "--track", "mlflow:http://127.0.0.1:5000", "--track", "tensorboard"]
    assert vars(build_parser().parse_args(words))["track"] == "mlflow:http://127.0.0.1:5000,tensorboard"


def test_entries_hold_no_keys_and_increasing_steps(night: RunDirectory) -> None:
    lines = night.ledger.read_text().replace("Move along the best direction so far.", "use sk-abcdefgh12345678")
    night.ledger.write_text(lines)
    curve = next(night.path.glob("trials/0001/run-1/curve.jsonl"))
    ledger = night.ledger.read_text().replace('"steps": 900', '"steps %$": 900')
    night.ledger.write_text(ledger)
    rows = [json.loads(row) for row in curve.read_text().splitlines()]
    curve.write_text("\n".join(json.dumps({**row, "step": row["step"] % 100}) for row in rows))
    state = state_of(night)
    entries = [entry_of(number, state, night.path) for number in range(7)]
    assert "sk-abcdefgh" not in repr(entries)
    steps = [point.step for point in entries[1].curve]
    assert steps == sorted(set(steps))
    assert len({entry.id for entry in entries}) == 7
    assert entries[0].figures["system/steps___"] == 900


def test_points_follow_the_ledger(night: RunDirectory) -> None:
    events = read(night.ledger)
    states: list[State] = [fold(events[: k + 1]) for k, event in enumerate(events) if isinstance(event, Observed)]
    assert [point_of(state)["trials"] for state in states] == list(range(7))
    assert about(states[0]) == about(states[-1])
