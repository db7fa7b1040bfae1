"""progress.json of a run: what the session does now, for other processes.

At most one write a second, replaced as a whole, without fsync: no decision depends on it. Readers ignore a file that is
missing, unreadable or older than the last event of the ledger.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from agent.ledger.events import Event
from agent.ledger.state import State
from agent.observers.activity import Activity, advance, follow
from agent.observers.protocol import Observer
from agent.rundir.directory import replace_file

INTERVAL = 1.0  # seconds


class Heartbeat(Observer):
    """Writes progress.json."""

    def __init__(self, path: Path):
        self._path = path
        self._activity = Activity()
        self._written = float("-inf")

    def event(self, event: Event, state: State) -> None:
        self._activity = follow(self._activity, event)
        self._write()

    def progress(self, phase: str, info: Mapping[str, Any]) -> None:
        if phase == "note":
            self._activity.note = str(info.get("text", ""))
        else:
            advance(self._activity, phase, info)
        self._write()

    def _write(self) -> None:
        now = time.monotonic()
        if now - self._written >= INTERVAL:
            self._written = now
            activity = {**asdict(self._activity), "losses": [round(v, 4) for v in self._activity.losses]}
            with suppress(OSError):  # a full disk: the next write tries again
                replace_file(self._path, json.dumps({"time": round(time.time(), 3), **activity}))


def read_heartbeat(path: Path) -> tuple[float, Activity]:
    """Time of the last write in seconds since the epoch, 0 if unreadable, and the activity at that time."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        moment = float(data.pop("time"))
        known = {field.name for field in fields(Activity)}
        activity = Activity(**{name: value for name, value in data.items() if name in known})
        activity.losses = [float(loss) for loss in activity.losses]
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return 0.0, Activity()
    return moment, activity
