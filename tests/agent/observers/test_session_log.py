"""session.log, and sessions in the background."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
import warnings
from pathlib import Path

import budgets
import pytest
from openai_server import OpenAIServer
from sessions import check_whole, start, state_of
from targets import TRAIN, git, make_bowl

from agent.ledger.events import Resumed, name_of
from agent.ledger.journal import Ledger, read
from agent.observers import session_log as sessionlog
from agent.observers.session_log import SessionLog
from agent.rundir.directory import RunDirectory


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return make_bowl(tmp_path / "target")


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines()


def test_log_has_one_line_per_event(target: Path, tmp_path: Path) -> None:
    directory = start(target, tmp_path / "runs", policy="greedy", seed=1)
    events = read(directory.ledger)
    found = lines(directory.log)
    assert [line.split()[3] for line in found] == [name_of(e) for e in events]
    assert all(line.split()[2] == "INFO" for line in found)
    assert "trial 1  cma: " in "\n".join(found)
    assert found[-1].endswith("all 4 trials done")


def test_log_ends_with_the_fatal_error(tmp_path: Path) -> None:
    target = make_bowl(tmp_path / "target", TRAIN.replace("def value", "1 / 0\n\n\ndef value"))
    with pytest.raises(Exception, match="the unchanged target fails"):
        start(target, tmp_path / "runs")
    assert " ERROR the unchanged target fails" in lines(tmp_path / "runs/night/session.log")[-1]


def test_notes_and_warnings_are_logged_without_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "geheim-4711")
    with SessionLog(tmp_path / "session.log") as log:
        for _ in range(2):
            log.progress("note", {"text": "waiting for the model server: geheim-4711 \x1b[31mrefused"})
        log.progress("training", {"loss": 3.0})
        logging.getLogger("library").warning("it %s", "creaks")
        warnings.warn("old", DeprecationWarning, stacklevel=1)
    logging.getLogger("library").warning("after the night")
    found = lines(tmp_path / "session.log")
    assert found[0].endswith("WARNING note: waiting for the model server: [key] refused")
    assert found[1].endswith("WARNING library: it creaks")
    assert "py.warnings: " in found[2]
    assert len(found) == 3


def test_log_rotates_at_most_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessionlog, "MOST_BYTES", 4000)
    with Ledger(tmp_path / "ledger.jsonl") as ledger, SessionLog(tmp_path / "session.log") as log:
        for _ in range(300):
            log.event(ledger.append(Resumed(attempt=1)), ledger.state)
    found = sorted(p.name for p in tmp_path.glob("session.log*"))
    assert found == ["session.log", "session.log.1", "session.log.2", "session.log.3"]
    assert all((tmp_path / name).stat().st_size <= 4000 for name in found)


def test_unwritable_log_does_not_stop_session(tmp_path: Path) -> None:
    log = SessionLog(Path("/dev/full"))
    with log, Ledger(tmp_path / "ledger.jsonl") as ledger:
        log.event(ledger.append(Resumed(attempt=1)), ledger.state)
    with SessionLog(tmp_path / "no" / "such" / "folder") as nowhere:
        nowhere.progress("note", {"text": "lost"})
    assert [name_of(event) for event in read(tmp_path / "ledger.jsonl")] == ["resumed"]
    assert not (tmp_path / "no").exists()


# in the background


def detached(*words: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-m", "agent.cli", "run", "--detach", *map(str, words)]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=budgets.PROGRAM_SECONDS, start_new_session=True, cwd=cwd
    )


def usual(target: Path, runs: Path) -> tuple[object, ...]:
    return ("--target", target, "--runs", runs, "--proposer", "random", "--sandbox", "process", "--policy", "greedy",
            "--calibrate", 1, "--trials", 3)  # fmt: skip


def wait_until_over(directory: RunDirectory) -> None:
    end = time.monotonic() + budgets.PROGRAM_SECONDS
    while directory.running() or not state_of(directory).ended:
        assert time.monotonic() < end
        time.sleep(0.02)


def plant(folder: Path) -> Path:
    """Modules that leave a file when they are imported, under names that Overnight imports; returns that file."""
    marker = folder / "imported"
    code = f"open({str(marker)!r}, 'w').close()\n"
    for name in ("msgspec.py", "logging.py", "agent/__init__.py", "sandbox/__init__.py"):
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(code)
    return marker


def test_background_session_imports_nothing_from_working_directory(target: Path, tmp_path: Path) -> None:
    marker, runs = plant(target), tmp_path / "runs"
    git(target, "add", "-A")
    git(target, "commit", "-q", "-m", "Plant")
    done = detached(*usual(target, runs), cwd=target)
    assert done.returncode == 0, done.stderr
    wait_until_over(RunDirectory(runs, done.stdout.strip()))
    assert not marker.exists()


def test_background_session_writes_its_log(target: Path, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    done = detached(*usual(target, runs))
    assert done.returncode == 0, done.stderr
    directory = RunDirectory(runs, done.stdout.strip())
    assert str(directory.log) in done.stderr
    wait_until_over(directory)
    assert "all 3 trials done" in directory.log.read_text()
    assert sorted(p.name for p in runs.iterdir()) == [directory.tag]
    check_whole(directory, target, 3)


def test_failed_start_is_reported_in_foreground(target: Path, tmp_path: Path) -> None:
    with OpenAIServer([], key="another") as server:
        done = detached(*usual(target, tmp_path / "runs"), "--proposer", "code", "--llm-base-url", server.base_url)
    assert done.returncode == 3
    assert server.base_url in done.stderr
    assert done.stdout == ""
    assert not list((tmp_path / "runs").iterdir())


def test_detach_in_config_file_detaches_once(target: Path, tmp_path: Path) -> None:
    (tmp_path / "night.toml").write_text('detach = true\ntag = "night"\n')
    words = ["run", *usual(target, tmp_path / "runs"), "--config", tmp_path / "night.toml"]
    command = [sys.executable, "-m", "agent.cli", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=budgets.PROGRAM_SECONDS)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "night"
    wait_until_over(RunDirectory(tmp_path / "runs", "night"))
    again = [sys.executable, "-m", "agent.cli", "resume", "night", "--detach", "--trials", "4"]
    done = subprocess.run(
        [*again, "--runs", str(tmp_path / "runs")],
        capture_output=True,
        text=True,
        timeout=budgets.PROGRAM_SECONDS,
        env={**os.environ},
    )
    assert done.returncode == 0, done.stderr
    wait_until_over(RunDirectory(tmp_path / "runs", "night"))
    check_whole(RunDirectory(tmp_path / "runs", "night"), target, 4)
