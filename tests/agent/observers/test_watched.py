"""A session seen from outside: progress.json, `overnight watch`, the split of its time."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import budgets
import pytest
from nights import write_night
from rich.console import Console
from sessions import start, state_of
from targets import TRAIN, make_bowl

from agent import text
from agent.cli.entry import main
from agent.ledger.events import Asked, Observed, Resumed, RunStarted, SessionStarted
from agent.ledger.journal import parse
from agent.ledger.recovery import read_state
from agent.ledger.state import State, fold
from agent.observers import heartbeat
from agent.observers.heartbeat import Heartbeat, read_heartbeat
from agent.observers.watched import Watched
from agent.review.data.attempt import end_of
from agent.review.data.summary import summarize
from agent.rundir.directory import RunDirectory
from agent.types import Proposal


def drawn(watched: Watched, width: int = 100, height: int = 34) -> list[str]:
    console = Console(file=io.StringIO(), width=width, height=height or 100)
    console.print(watched.picture(width, height))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


@pytest.fixture
def night(tmp_path: Path) -> RunDirectory:
    write_night(tmp_path / "runs" / "jun12", trials=12, ended=False)
    return RunDirectory(tmp_path / "runs", "jun12")


def beat(directory: RunDirectory, **info: Any) -> None:
    Heartbeat(directory.progress).progress("training", {"trial": 12, "role": "screen", "seconds": 4.0, **info})


def test_heartbeat_holds_activity_of_session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "INTERVAL", 0.0)
    path, before = tmp_path / "progress.json", time.time()
    view = Heartbeat(path)
    view.event(RunStarted(trial=3, commit="c", role="confirm", seed=0, trace="t"), State())
    assert read_heartbeat(path).phase == "startup"
    for step in range(3):
        view.progress("training", {"trial": 3, "role": "confirm", "step": step, "loss": 5.0 - step, "progress": 0.5})
    view.progress("note", {"text": "waiting for the model server"})
    activity = read_heartbeat(path)
    assert before - 1 <= activity.time <= time.time() + 1
    assert (activity.trial, activity.role, activity.phase) == (3, "confirm", "training")
    assert activity.losses == [5.0, 4.0, 3.0]
    assert activity.note == "waiting for the model server"
    view.event(Asked(trial=4, proposal=Proposal("llm", "llm", "p", "")), State())
    assert read_heartbeat(path).note == ""
    assert [p.name for p in tmp_path.iterdir()] == ["progress.json"]


def test_heartbeat_is_written_once_in_its_interval(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "INTERVAL", 3600.0)
    view = Heartbeat(tmp_path / "progress.json")
    view.progress("training", {"loss": 1.0})
    view.progress("training", {"loss": 2.0})
    assert read_heartbeat(tmp_path / "progress.json").losses == [1.0]


@pytest.mark.parametrize("data", ["", "{", "[]", "{}", '{"time": "x"}', '{"time": 1, "losses": 3}', "\x00\x00"])
def test_unreadable_heartbeat_is_ignored(tmp_path: Path, data: str) -> None:
    (tmp_path / "progress.json").write_text(data)
    assert read_heartbeat(tmp_path / "progress.json").time in (0.0, 1.0)
    assert read_heartbeat(tmp_path / "nowhere").time == 0.0


@pytest.mark.parametrize(("width", "height"), [(100, 34), (60, 20), (200, 60), (50, 16), (100, 0)])
def test_picture_fits_the_terminal(night: RunDirectory, width: int, height: int) -> None:
    for k in range(3):
        beat(night, loss=3.0 - k / 10, progress=0.25, step=k)
    night.log.write_text("2026-06-12 22:04:11+0000 INFO run_started trial 12\x1b[2J\n" * 9)
    with night.lock():
        lines = drawn(Watched(night), width, height)
    assert all(len(line) <= width for line in lines)
    assert len(lines) <= (height or 99)
    assert "trial 12 · training" in "\n".join(lines)
    assert "\x1b" not in "".join(lines)


@pytest.mark.parametrize("width", [30, 36, 40, 44, 52, 60, 80])
def test_narrow_picture_cuts_no_number(night: RunDirectory, width: int) -> None:
    beat(night, loss=2.61, progress=1.0, step=12_345, tokens_per_second=98765.4, seconds_left=225.0)
    night.log.write_text("2026-06-12 22:04:11+0000 INFO judged  trial 11  keep  1.0334  +0.0037 ± 0.0011  12345 678\n")
    with night.lock():
        lines = drawn(Watched(night), width, 40)
    verdicts = {r.number: r.verdict for r in Watched(night).state().finished if r.verdict}
    gains = {f"{number} ": text.gain(verdict.gain, verdict.gain_se) for number, verdict in verdicts.items()}
    for number, gain in list(gains.items())[-3:]:
        assert any(line.strip("│ ").startswith(number) and gain in line for line in lines)
    others = [line for line in lines if not line.strip("│ ").startswith(tuple(gains))]
    assert not [line for line in others if re.search(r"\d…", line)]
    assert [line for line in lines if " 2.610" in line]


def test_picture_shows_progress_and_interruption(night: RunDirectory) -> None:
    beat(night, loss=3.0, progress=0.25, step=40, seconds_left=225.0)
    with night.lock():
        shown = "\n".join(drawn(Watched(night)))
    for words in ("running", "25%", "step 40", "loss 3.000", "gained", "kept", "time left", "heartbeat"):
        assert words in shown
    shown = "\n".join(drawn(Watched(night)))
    assert "interrupted" in shown
    assert "overnight resume jun12" in shown
    assert "time left" not in shown


def test_watched_follows_growing_ledger(night: RunDirectory) -> None:
    data = night.ledger.read_bytes()
    middle = data.index(b"\n", len(data) // 2) + 40  # within a line
    night.ledger.write_bytes(data[:middle])
    watched = Watched(night)
    first = watched.state()
    night.ledger.write_bytes(data)
    assert watched.state() == fold(parse(data)[0])
    assert len(first.records) < len(watched.state().records)


def test_watched_reads_around_damaged_line(night: RunDirectory) -> None:
    lines = night.ledger.read_bytes().splitlines(keepends=True)
    at = [k for k, line in enumerate(lines) if json.loads(line)["event"] == "asked"][4]
    lines[at] = lines[at][:40] + b"\n"
    night.ledger.write_bytes(b"".join(lines[: at + 1]))  # the last line is torn and closed: no damage yet
    watched = Watched(night)
    assert len(watched.state().records) == 4
    assert watched.damage == []
    with night.ledger.open("ab") as file:
        file.write(b"".join(lines[at + 1 : -6]))
    shown = "\n".join(drawn(watched))
    assert f"ledger.jsonl, line {at + 1}, is damaged" in " ".join(watched.damage)
    assert f"line {at + 1}, is damaged" in shown
    assert all(f"│ {label} " in shown for label in ("gained", "trials", "damaged", "noise")), shown
    with night.ledger.open("ab") as file:
        file.write(b"".join(lines[-6:]))
    assert watched.state() == read_state(night.ledger)[0]
    assert len(watched.damage) == 1


def test_newer_event_replaces_older_heartbeat(night: RunDirectory) -> None:
    beat(night, loss=3.0)
    watched = Watched(night)
    state = watched.state()
    future = state.last_time + 10  # later than any heartbeat written now
    activity = watched.activity(state, future)
    if state.last_time > time.time():
        assert activity.time == state.last_time
        assert activity.phase == "startup"


def test_watch_draws_once_in_a_pipe(night: RunDirectory, capsys: pytest.CaptureFixture[str]) -> None:
    with night.lock():
        assert main(["watch", "jun12", "--runs", str(night.path.parent)]) == 0
    shown = capsys.readouterr().out
    assert "gained" in shown
    assert "\x1b" not in shown


def test_tail_returns_last_lines(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("".join(f"line {k}\n" for k in range(5000)))
    assert end_of(tmp_path / "log", 20).splitlines()[-2:] == ["line 4998", "line 4999"]
    assert end_of(tmp_path / "none", 20) == ""


def test_chart_scales_to_width_and_height() -> None:
    assert text.chart([3.0, 2.0, 1.0], 3, 2) == ["█▁ ", "██▁"]
    assert all(len(line) == 7 for line in text.chart([1.0, 2.0], 7, 3))
    assert text.chart([float("nan")], 5, 3) == []


@pytest.mark.parametrize("way", ["q", "ctrl-c"])
def test_quitting_watch_leaves_session_running(tmp_path: Path, way: str) -> None:
    target = make_bowl(tmp_path / "target", TRAIN.replace("\nnoise =", "import time\n\ntime.sleep(0.3)\nnoise ="))
    runs = tmp_path / "runs"
    words = ["--target", target, "--runs", runs, "--tag", "night", "--proposer", "random", "--sandbox", "process",
             "--policy", "greedy", "--calibrate", "1", "--trials", "9999"]  # fmt: skip
    program = [sys.executable, "-m", "agent.cli"]
    session = subprocess.Popen([*program, "run", *map(str, words)], stderr=subprocess.DEVNULL)
    directory = RunDirectory(runs, "night")
    master, slave = pty.openpty()
    try:
        end = time.monotonic() + budgets.PROGRAM_SECONDS
        while not (directory.ledger.exists() and state_of(directory).records):
            assert time.monotonic() < end
            time.sleep(0.05)
        watcher = subprocess.Popen(
            [*program, "watch", "night", "--runs", str(runs)], stdin=slave, stdout=slave, stderr=slave,
            start_new_session=True, env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "100", "LINES": "30"},
        )  # fmt: skip
        seen = b""
        while b"heartbeat" not in seen:
            assert time.monotonic() < end
            if select.select([master], [], [], 0.5)[0]:
                seen += os.read(master, 65536)
        if way == "q":
            os.write(master, b"q")
        else:
            watcher.send_signal(signal.SIGINT)
        while watcher.poll() is None:
            assert time.monotonic() < end
            if select.select([master], [], [], 0.1)[0]:
                seen += os.read(master, 65536)
        assert watcher.returncode == 0
        assert session.poll() is None
        assert directory.running()
    finally:
        session.kill()
        session.wait()
        os.close(slave)
        os.close(master)


# split of time


def test_split_of_time_adds_up(tmp_path: Path) -> None:
    target = make_bowl(tmp_path / "target")
    directory = start(target, tmp_path / "runs", trials=2)
    summary = summarize(state_of(directory))
    assert sum(summary.split.values()) == pytest.approx(summary.wall_seconds, abs=0.01)
    assert set(summary.split) <= {"training", "start-up", "scoring", "waiting for ideas", "overhead"}
    assert summary.split["training"] > 0
    assert directory.progress.exists()


def test_split_excludes_time_between_sessions() -> None:
    proposal = Proposal("code", "llm", "b", "", ending="duplicate")
    events = [
        SessionStarted(time=1000.0, baseline="b"),
        Observed(time=1010.0, trial=0),
        Asked(time=1040.0, trial=1, started=1038.0, proposal=proposal),
        Observed(time=1041.0, trial=1),
        Resumed(time=9041.0, attempt=1),
        Asked(time=9046.0, trial=2, started=9041.0, proposal=proposal),
    ]
    summary = summarize(fold(events))
    assert summary.wall_seconds == 46
    assert summary.split == {"waiting for ideas": 35, "overhead": 11}
    back = [SessionStarted(time=1000.0), Observed(time=500.0, trial=0)]
    assert summarize(fold(back)).split == {}
