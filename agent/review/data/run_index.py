"""One line about each run, remembered between calls: `overnight list` folds no ledger that has not grown.

What is remembered lies in the run's directory as ``.list.json``, with the size and time of the ledger that it was made
from. It is a copy and no record: delete it, and the next call makes it anew.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from agent import __version__
from agent.errors import OvernightError
from agent.ledger.recovery import read_state
from agent.review.data.runs import SCHEMA, runs_json
from agent.rundir.directory import RunDirectory, find_runs, replace_file

NAME = ".list.json"


def overview(root: Path, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """A row of ``overnight list`` for each run below ``root``, oldest first; ``say`` is told of damaged ledgers."""
    return [row(RunDirectory(root, tag), say) for tag in find_runs(root)]


def row(directory: RunDirectory, say: Callable[[str], None]) -> dict[str, Any]:
    place, stamp = directory.path / NAME, _stamp(directory.ledger)
    found = _remembered(place, stamp)
    if found is None:
        state, damage = read_state(directory.ledger)
        found = runs_json([(directory.tag, state, False)])[0]
        for problem in damage:
            say(problem)
        with suppress(OSError, OvernightError):  # a folder that is not ours to write to
            if not damage:
                replace_file(place, json.dumps({"stamp": stamp, "row": found}))
    found = {**found, "tag": directory.tag}  # a folder may have been renamed
    return {**found, "state": "running", "reason": None} if directory.running() else found


def _stamp(ledger: Path) -> list[Any]:
    """What changes whenever the row could."""
    try:
        stat = ledger.stat()
    except FileNotFoundError:
        return [SCHEMA, __version__, 0, 0]
    return [SCHEMA, __version__, stat.st_size, stat.st_mtime_ns]


def _remembered(place: Path, stamp: list[Any]) -> dict[str, Any] | None:
    try:
        data = json.loads(place.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    fits = isinstance(data, dict) and data.get("stamp") == stamp and isinstance(data.get("row"), dict)
    return dict(data["row"]) if fits else None
