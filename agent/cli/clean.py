"""``overnight clean TAG``: give back the disk that the trials of a run hold, and keep what tells what happened.

Ledger, refs, diffs, curves, results.tsv, run.toml, notes and reports stay, so that every command that reads a run works
as before; only logs and conversations are gone from `overnight show`.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from agent import text
from agent.cli.runs import existing, load
from agent.errors import EnvironmentProblem, UsageError
from agent.ledger.state import State

# What is bulky, by what it is called: patterns below trials/NNNN/.
BULKY: Mapping[str, tuple[str, ...]] = {
    "checkpoints": ("run-*/model.safetensors", "run-*/model.json"),
    "logs": ("run-*/train.log",),
    "traces": ("run-*/trace.jsonl",),
    "transcripts": ("*.md",),
}


@dataclass(frozen=True)
class Found:
    """A file that would go."""

    path: Path
    kind: str
    size: int  # bytes
    age: float  # seconds since it was last written


def clean(tag: str, older_than: float, larger_than: float, dry_run: bool, runs: str) -> int:
    """Remove what is older than so many days and larger than so many MB, and say what that freed.

    Raises:
        UsageError: the run is going on. (Listing what would go is allowed then, too.)
        EnvironmentProblem: a file cannot be removed.
    """
    for flag, bound in (("--older-than", older_than), ("--larger-than", larger_than)):
        if not 0 <= bound < math.inf:
            raise UsageError(f"{flag} {bound:g}: must be a finite number, and cannot be negative.")
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
            else:
                _remove(found.path)
    print(summary(tag, chosen, dry_run), file=sys.stderr)
    return 0


def bulky(run: Path, state: State, now: float) -> Iterator[Found]:
    """The bulky files of all trials that are over: one under way is needed by the next resume."""
    under_way = {0} if 0 not in state.told else set(state.open)
    for trial in sorted((run / "trials").glob("[0-9]*")):
        if trial.is_symlink() or not trial.name.isdigit() or int(trial.name) in under_way:
            continue
        for kind, patterns in BULKY.items():
            for path in sorted(found for pattern in patterns for found in trial.glob(pattern)):
                if path.is_file() and not path.is_symlink() and not path.parent.is_symlink():
                    facts = path.stat()
                    yield Found(path, kind, facts.st_size, max(0.0, now - facts.st_mtime))


def summary(tag: str, chosen: list[Found], dry_run: bool) -> str:
    """One line: what went, by kind, and how much that is."""
    if not chosen:
        return f"run {tag}: nothing to remove"
    sizes = {kind: sum(f.size for f in chosen if f.kind == kind) for kind in BULKY}
    kinds = ", ".join(f"{kind} {_size(size)}" for kind, size in sizes.items() if any(f.kind == kind for f in chosen))
    total = f"{text.count(len(chosen), 'file')}, {_size(sum(sizes.values()))} ({kinds})"
    return f"run {tag}: {'would free' if dry_run else 'freed'} {total}"


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise EnvironmentProblem(f"cannot remove {path}: {error.strerror}.") from error
