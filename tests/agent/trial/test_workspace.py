"""Temporary folders of runs, and their removal after a session was killed."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from agent.errors import EnvironmentProblem
from agent.trial.workspace import workspace
from sandbox.local import sweep_folders

HOLD = """
import os, signal
from agent.trial.workspace import workspace
with workspace("night") as one, workspace("night", memory=True) as two:
    (one / "code").mkdir()
    print(one, two, flush=True)
    signal.pause()
"""


def test_sweep_removes_folders_of_killed_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    process = subprocess.Popen([sys.executable, "-c", HOLD], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    folders = [Path(word) for word in process.stdout.readline().split()]
    assert [folder.is_dir() for folder in folders] == [True, True]
    assert sweep_folders("night") == 0, "the process still runs"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    with workspace("night") as mine:
        assert sweep_folders("another") == 0
        assert sweep_folders("night") == 2
        assert mine.is_dir()
    assert [folder.exists() for folder in (*folders, mine)] == [False, False, False]


def test_workspace_is_readable_by_sandboxed_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with workspace("night") as folder:
        assert folder.stat().st_mode & 0o777 == 0o755
        assert folder.parent == tmp_path


def test_missing_temporary_folder_is_environment_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "gone"))
    with pytest.raises(EnvironmentProblem, match="temporary folder"), workspace("night"):
        pass
