"""``overnight clean TAG``: frees the disk space of a session's trials.

Ledger, refs, diffs, curves, results.tsv, run.toml, notes and reports stay, so that every command that reads a session
still works. `overnight show` then lacks logs and conversations.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from rich.filesize import decimal

from agent.cli.output import say
from agent.cli.runs import existing, load
from agent.errors import UsageError
from agent.ledger.state import State
from agent.text import count

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
    facts: os.stat_result


def clean(tag: str, older_than: float, larger_than: float, dry_run: bool, runs: str) -> None:
    """Raises ``UsageError`` for a wrong bound, or if the session is running and ``dry_run`` is not set."""
    for flag, bound in (("--older-than", older_than), ("--larger-than", larger_than)):
        if not 0 <= bound < math.inf:
            raise UsageError(f"{flag} {bound:g}: must be a finite number, 0 or more.")
    directory = existing(runs, tag)
    with nullcontext() if dry_run else directory.lock():
        now = time.time()
        chosen = [
            found
            for found in bulky(directory.path, load(directory)[0])
            if max(0.0, now - found.facts.st_mtime) >= older_than * 86400 and found.facts.st_size >= larger_than * 1e6
        ]
        for found in chosen:
            if dry_run:
                print(f"{found.facts.st_size:>13,}  {found.path}")
            else:
                found.path.unlink(missing_ok=True)
    say(summary(tag, chosen, dry_run))


def bulky(run: Path, state: State) -> Iterator[Found]:
    """The bulky files of finished trials. The next resume needs the files of open trials."""
    unfinished = {0} if 0 not in state.observed else set(state.open)
    for trial in sorted((run / "trials").glob("[0-9]*")):
        if trial.is_symlink() or not trial.name.isdigit() or int(trial.name) in unfinished:
            continue
        for kind, patterns in BULKY.items():
            for path in sorted(found for pattern in patterns for found in trial.glob(pattern)):
                if path.is_file() and not path.is_symlink() and not path.parent.is_symlink():
                    yield Found(path, kind, path.stat())


def summary(tag: str, chosen: list[Found], dry_run: bool) -> str:
    """One line: number of files, and bytes by kind."""
    if not chosen:
        return f"session {tag}: nothing to remove"
    sizes = {kind: [f.facts.st_size for f in chosen if f.kind == kind] for kind in BULKY}
    kinds = ", ".join(f"{kind} {decimal(sum(found))}" for kind, found in sizes.items() if found)
    total = decimal(sum(map(sum, sizes.values())))
    return f"session {tag}: {'would free' if dry_run else 'freed'} {count(len(chosen), 'file')}, {total} ({kinds})"
