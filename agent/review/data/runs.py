"""All sessions of a folder, one line each: the rows of ``overnight list``.

``run_json`` is one element of schema ``overnight.list/1``, a list with one object per session:

- tag, proposer, metric, goal, started (seconds since the epoch), self_reported
- state: running, ended or interrupted; reason: why it ended (null)
- trials, planned (null without a bound), kept, failed
- baseline, best, gain, gain_se: values and the gain between them
- comparison: name of the comparison that the session belongs to (null); in ``overnight list`` only
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from agent import __version__, text
from agent.errors import OvernightError
from agent.files import replace_file
from agent.ledger.recovery import read_state
from agent.ledger.state import State
from agent.review.data.summary import summarize
from agent.rundir.directory import RunDirectory, find_runs

CACHE = ".list.json"  # in the folder of a run: its row, with the size and time of its ledger; it may be deleted
LIST_SCHEMA = "overnight.list/1"
FIGURES = ("goal", "trials", "planned", "kept", "failed", "gain", "gain_se", "self_reported")  # of the summary


def condition(state: State, running: bool) -> str:
    return "running" if running else "ended" if state.ended else "interrupted"


class _Cached(msgspec.Struct):
    stamp: list[Any]
    row: dict[str, Any]


def run_json(tag: str, state: State, running: bool) -> dict[str, Any]:
    summary = summarize(state)
    return {
        "schema": LIST_SCHEMA,
        "tag": tag,
        "state": condition(state, running),
        "reason": text.line(state.ended) if state.ended and not running else None,
        "metric": text.line(summary.metric),
        "proposer": text.line(state.session.proposer),
        "started": state.session.began,
        "baseline": summary.baseline.value if summary.baseline else None,
        "best": summary.best.value if summary.best else None,
        **{name: getattr(summary, name) for name in FIGURES},
    }


def overview(root: Path, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """Return a row for each session below ``root``, oldest first, with the comparison that it belongs to (null).

    ``say`` prints damage of ledgers.
    """
    tags = find_runs(root)
    comparisons = [path.parent.name for path in sorted(root.glob("*/compare.toml"), reverse=True)]

    def comparison(tag: str) -> str | None:
        return next((name for name in comparisons if re.fullmatch(rf"{re.escape(name)}-.+-s\d+", tag)), None)

    return [{**row(RunDirectory(root, tag), say), "comparison": comparison(tag)} for tag in tags]


def row(directory: RunDirectory, say: Callable[[str], None]) -> dict[str, Any]:
    """Return the row of one session, and cache it unless its ledger is damaged."""
    place, stamp, found = directory.path / CACHE, _stamp(directory.ledger), None
    with suppress(OSError, ValueError):  # no cache, or a damaged one
        cached = msgspec.json.decode(place.read_bytes(), type=_Cached)
        found = cached.row if cached.stamp == stamp else None
    if found is None:
        state, damage = read_state(directory.ledger)
        found = run_json(directory.tag, state, running=False)
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
