"""The rows of ``overnight list``, cached: a ledger is read again only if it changed.

The cache is the file ``.list.json`` in the run's directory, with the size and time of the ledger. It may be deleted.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from agent import __version__
from agent.errors import OvernightError
from agent.ledger.recovery import read_state
from agent.review.data.runs import LIST_SCHEMA, overview_of, run_json
from agent.rundir.directory import RunDirectory, find_runs, replace_file

NAME = ".list.json"


def overview(root: Path, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """Return a row for each run below ``root``, oldest first, with the comparison that it belongs to (null).

    ``say`` prints damage of ledgers.
    """
    tags = find_runs(root)
    comparisons = [path.parent.name for path in sorted(root.glob("*/compare.toml"), reverse=True)]

    def comparison(tag: str) -> str | None:
        return next((name for name in comparisons if re.fullmatch(rf"{re.escape(name)}-.+-s\d+", tag)), None)

    return [{**row(RunDirectory(root, tag), say), "comparison": comparison(tag)} for tag in tags]


def row(directory: RunDirectory, say: Callable[[str], None]) -> dict[str, Any]:
    """Return the row of one run, and cache it unless its ledger is damaged."""
    place, stamp = directory.path / NAME, _stamp(directory.ledger)
    found = _cached(place, stamp)
    if found is None:
        state, damage = read_state(directory.ledger)
        found = run_json(overview_of(directory.tag, state, running=False))
        for problem in damage:
            say(problem)
        with suppress(OSError, OvernightError):  # the folder may be read-only
            if not damage:
                replace_file(place, json.dumps({"stamp": stamp, "row": found}))
    found = {**found, "tag": directory.tag}  # the folder may have been renamed
    return {**found, "state": "running", "reason": None} if directory.running() else found


def _stamp(ledger: Path) -> list[Any]:
    """What changes whenever the row may change."""
    try:
        stat = ledger.stat()
    except FileNotFoundError:
        return [LIST_SCHEMA, __version__, 0, 0]
    return [LIST_SCHEMA, __version__, stat.st_size, stat.st_mtime_ns]


def _cached(place: Path, stamp: list[Any]) -> dict[str, Any] | None:
    try:
        data = json.loads(place.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    fits = isinstance(data, dict) and data.get("stamp") == stamp and isinstance(data.get("row"), dict)
    return dict(data["row"]) if fits else None
