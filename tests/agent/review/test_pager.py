"""Only output that is longer than the terminal goes through PAGER."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from nights import write_night

from agent.review.terminal.pager import has_pager

Shown = Callable[..., tuple[str, str]]


@pytest.fixture
def shown(tmp_path: Path) -> Shown:
    """Run a command on a terminal with this number of lines; return its output and the input of its pager."""
    write_night(tmp_path / "runs" / "jun12", 30)

    def run(*words: str, lines: int, pager: str | None = None) -> tuple[str, str]:
        place = tmp_path / "paged"
        place.unlink(missing_ok=True)
        master, slave = pty.openpty()
        said: list[bytes] = []

        def listen() -> None:
            try:
                while data := os.read(master, 65536):
                    said.append(data)
            except OSError:  # closed
                pass

        listener = threading.Thread(target=listen)
        listener.start()
        done = subprocess.run(
            [sys.executable, "-m", "agent.cli", *words, "--runs", str(tmp_path / "runs")],
            stdin=slave, stdout=slave, stderr=subprocess.PIPE,
            env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "100", "LINES": str(lines),
                 "PAGER": f"tee {place}" if pager is None else pager, "MANPAGER": "head -1"},
        )  # fmt: skip
        os.close(slave)
        listener.join()
        os.close(master)
        assert done.returncode == 0, done.stderr
        return b"".join(said).decode(), place.read_text() if place.exists() else ""

    return run


def test_long_output_is_paged(shown: Shown) -> None:
    said, paged = shown("log", "--all", lines=12)
    assert paged.count("\n") == 31
    assert said.replace("\r\n", "\n") == paged
    assert "\x1b[" in paged


@pytest.mark.parametrize(
    ("words", "lines", "pager"),
    [
        (("log", "--all"), 60, None),
        (("log", "--all", "--json"), 12, None),
        (("log", "--all"), 12, ""),
        (("log", "--all"), 12, "no-such-pager"),
    ],
)
def test_short_output_and_json_are_not_paged(
    shown: Shown, words: tuple[str, ...], lines: int, pager: str | None
) -> None:
    said, paged = shown(*words, lines=lines, pager=pager)
    assert said.count("\n") > 30
    assert paged == ""


def test_leaving_the_pager_early_is_no_error(shown: Shown) -> None:
    said, _ = shown("show", "1", lines=5, pager="head -1")
    assert said.count("\n") == 1


def test_pager_of_environment() -> None:
    assert has_pager({"PAGER": "tail -n 3"})
    assert not any(has_pager({"PAGER": none}) for none in ("", "cat", "no-such-pager", "'tail"))
