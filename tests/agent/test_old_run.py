"""A run directory written by version 0.1 before its modules moved: every command still reads it.

``fixtures/run_of_0_1`` holds the run directory, the git objects and refs of its target (``target.bundle``), and what
``status --json`` and ``log --all --json`` of that version printed.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from old_run import LOG, STATUS, old_run
from sessions import state_of

from agent.rundir.directory import RunDirectory

LIVE = {"heartbeat", "wall_seconds", "split"}  # depend on the moment of the call, or gained parts since


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """The old run beside a clone of its target."""
    return old_run(tmp_path)


def overnight(runs: Path, *words: str) -> str:
    command = [sys.executable, "-m", "agent.cli", *words, "--runs", str(runs)]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    return done.stdout


def same(found: Any, before: Any) -> bool:
    return bool(found == (pytest.approx(before) if isinstance(before, float) else before))


def test_list_and_status_of_old_run(runs: Path) -> None:
    assert "night" in overnight(runs, "list")
    found, before = (
        json.loads(overnight(runs, "status", "night", "--json")),
        json.loads(STATUS.read_text()),
    )
    assert {key for key in before.keys() - LIVE if not same(found[key], before[key])} == set()


def test_log_and_show_of_old_run(runs: Path) -> None:
    found = json.loads(overnight(runs, "log", "night", "--all", "--json"))
    before = json.loads(LOG.read_text())
    assert len(found) == len(before)
    for now, then in zip(found, before, strict=True):
        assert {key for key in then if not same(now[key], then[key])} == set()
    assert "ValueError" in overnight(runs, "show", "night", "10")


def test_report_of_old_run(runs: Path) -> None:
    overnight(runs, "report", "night")
    assert "RATE" in (runs / "night" / "report.html").read_text()


def test_replay_check_of_old_run(runs: Path) -> None:
    found = json.loads(overnight(runs, "replay", "night", "--check", "--json"))
    assert len(found["steps"]) == 5, "the baseline and four kept edits"


def test_resume_of_interrupted_old_run(runs: Path) -> None:
    ledger = runs / "night" / "ledger.jsonl"
    lines = ledger.read_bytes().splitlines(keepends=True)
    cut = next(
        k for k, line in enumerate(lines) if json.loads(line)["event"] == "asked" and json.loads(line)["trial"] == 13
    )
    ledger.write_bytes(b"".join(lines[: cut + 3]))  # killed in the middle of trial 13
    overnight(runs, "resume", "night")
    state = state_of(RunDirectory(runs, "night"))
    assert len(state.finished) == 14
    assert state.keeps[:4] == (1, 6, 7, 12)
    subprocess.run(["git", "-C", str(runs.parent / "target"), "rev-parse", "autoresearch/night"], check=True)
