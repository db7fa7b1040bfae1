"""``overnight serve`` in its own process, over runs that grow."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nights import write_night


@contextmanager
def serving(runs: Path, *words: str) -> Iterator[str]:
    """Start a server on a free port; its address, without a token."""
    command = [sys.executable, "-m", "agent.cli", "serve", "--runs", str(runs), "--port", "0", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.kill()


class Growing:
    """A run whose ledger is a prefix of a whole night's; ``grow`` adds lines."""

    def __init__(self, folder: Path, tag: str, trials: int = 12, **knobs: object):
        whole = write_night(folder / "whole" / tag, trials, **knobs)
        self.path = folder / "runs" / tag
        shutil.copytree(whole, self.path, ignore=shutil.ignore_patterns("ledger.jsonl"))
        self._lines = (whole / "ledger.jsonl").read_text().splitlines(keepends=True)
        self.left = len(self._lines)

    def grow(self, lines: int) -> None:
        taken = self._lines[len(self._lines) - self.left :][:lines]
        self.left -= len(taken)
        with (self.path / "ledger.jsonl").open("a") as file:
            file.writelines(taken)

    def grow_trial(self) -> None:
        """Add the lines up to the end of the next trial."""
        rest = self._lines[len(self._lines) - self.left :]
        self.grow(next((k for k, line in enumerate(rest, 1) if '"told"' in line), len(rest)))
