"""Terminals that are not UTF-8, missing programs, and exceptions of libraries."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import git as gitpython
import openai
import pytest
from sessions import start
from targets import make_bowl

from agent.cli import entry
from agent.cli.entry import main


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("other")
    start(make_bowl(folder / "target"), folder / "runs", trials=1, calibrate=2)
    return folder / "runs"


def overnight(*words: str | Path, **environment: str) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "agent.cli", *map(str, words)]
    return subprocess.run(command, capture_output=True, env={**os.environ, **environment})


@pytest.mark.parametrize("encoding", ["latin-1", "ascii", "cp437"])
@pytest.mark.parametrize("command", ["list", "status night", "log night --all", "show night 1", "export night"])
def test_any_terminal_encoding_prints(runs: Path, command: str, encoding: str) -> None:
    done = overnight(*command.split(), "--runs", runs, PYTHONIOENCODING=encoding)
    assert done.returncode == 0, done.stderr
    assert done.stdout
    assert b"???" not in done.stdout, "a frame is drawn with characters that the encoding lacks"


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "<&-"])
def test_closed_stream_is_no_error(runs: Path, closed: str) -> None:
    words = [sys.executable, "-m", "agent.cli", "list", "--runs", str(runs)]
    done = subprocess.run(["bash", "-c", f"{shlex.join(words)} {closed}"], capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")


def test_missing_git_is_one_message(runs: Path) -> None:
    words = ["run", "--target", runs.parent / "target", "--proposer", "cma-es", "--sandbox", "process"]
    done = overnight(*words, "--runs", runs, PATH="/nowhere")
    assert done.returncode == 3
    assert b"git" in done.stderr
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize(
    "error", [gitpython.GitCommandError("git", 1), gitpython.BadName("ref"), openai.OpenAIError("no key")]
)
def test_exception_of_library_is_a_message(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def command() -> int:
        raise error

    monkeypatch.setattr(entry, "parse", lambda words: (command, {}))
    assert main(["list"]) == 3
    assert capsys.readouterr().err.startswith("overnight: ")
