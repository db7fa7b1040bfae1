"""``overnight clean TAG``: frees the disk space of a session's trials.

Ledger, refs, diffs, curves, results.tsv, run.toml, notes and reports stay, so that every command that reads a session
still works. `overnight show` then lacks logs and conversations.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from agent.cli.options import Commands, add_command
from agent.cli.output import say
from agent.cli.runs import existing, load
from agent.errors import EnvironmentProblem, UsageError

if TYPE_CHECKING:
    from agent.ledger.state import State

BULKY: Mapping[str, tuple[str, ...]] = {  # kind: patterns below trials/NNNN/
    "checkpoints": ("run-*/model.safetensors", "run-*/model.json"),
    "logs": ("run-*/train.log",),
    "traces": ("run-*/trace.jsonl",),
    "transcripts": ("*.md",),
}


@dataclass(frozen=True)
class Found:
    """A file that can be removed."""

    path: Path
    kind: str
    size: int  # bytes
    age: float  # seconds since the last write


def add(commands: Commands) -> None:
    parser = add_command(commands, "clean", clean, "tag runs")
    parser.add_argument(
        "--older-than", type=float, default=0.0, metavar="DAYS", help="only files of at least this age (default: 0)"
    )
    parser.add_argument(
        "--larger-than", type=float, default=0.0, metavar="MB", help="only files of at least this size (default: 0)"
    )
    parser.add_argument("--dry-run", action="store_true", help="list the files and remove nothing")


def clean(tag: str, older_than: float, larger_than: float, dry_run: bool, runs: str) -> int:
    """Remove bulky files of a session: checkpoints, logs, schedules, transcripts.

    Raises:
        UsageError: a wrong bound, or the session is running and ``dry_run`` is not set.
        EnvironmentProblem: a file cannot be removed.
    """
    for flag, bound in (("--older-than", older_than), ("--larger-than", larger_than)):
        if not 0 <= bound < math.inf:
            raise UsageError(f"{flag} {bound:g}: must be a finite number, 0 or more.")
    directory = existing(runs, tag)
    with nullcontext() if dry_run else directory.lock():
        chosen = [
            found
            for found in bulky(directory.path, load(directory)[0], time.time())
            if found.age >= older_than * 86400 and found.size >= larger_than * 1e6
        ]
        for found in chosen:
            if dry_run:
                print(f"{found.size:>13,}  {found.path}")
                continue
            try:
                found.path.unlink(missing_ok=True)
            except OSError as error:
                raise EnvironmentProblem(f"cannot remove {found.path}: {error.strerror}.") from error
    say(summary(tag, chosen, dry_run))
    return 0


def bulky(run: Path, state: State, now: float) -> Iterator[Found]:
    """The bulky files of finished trials. The next resume needs the files of open trials."""
    unfinished = {0} if 0 not in state.observed else set(state.open)
    for trial in sorted((run / "trials").glob("[0-9]*")):
        if trial.is_symlink() or not trial.name.isdigit() or int(trial.name) in unfinished:
            continue
        for kind, patterns in BULKY.items():
            for path in sorted(found for pattern in patterns for found in trial.glob(pattern)):
                if path.is_file() and not path.is_symlink() and not path.parent.is_symlink():
                    facts = path.stat()
                    yield Found(path, kind, facts.st_size, max(0.0, now - facts.st_mtime))


def summary(tag: str, chosen: list[Found], dry_run: bool) -> str:
    """One line: number of files, and bytes by kind."""
    from rich.filesize import decimal

    from agent.text import count

    if not chosen:
        return f"session {tag}: nothing to remove"
    sizes = {kind: [f.size for f in chosen if f.kind == kind] for kind in BULKY}
    kinds = ", ".join(f"{kind} {decimal(sum(found))}" for kind, found in sizes.items() if found)
    total = decimal(sum(f.size for f in chosen))
    return f"session {tag}: {'would free' if dry_run else 'freed'} {count(len(chosen), 'file')}, {total} ({kinds})"
