"""progress.json of a run: what the session does now, for whoever looks from outside.

Written at most once a second, replaced as a whole and never fsynced: nothing is decided by it. A file that is missing,
torn or older than the ledger's last event says nothing.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from agent.ledger.events import Event
from agent.ledger.state import State
from agent.observers.activity import Activity, advance, follow
from agent.rundir.directory import replace_file

INTERVAL = 1.0  # seconds


class Heartbeat:
    """A view that writes progress.json."""

    def __init__(self, path: Path):
        self._path = path
        self._activity = Activity()
        self._written = float("-inf")

    def __enter__(self) -> Heartbeat:
        return self

    def __exit__(self, *_: object) -> None:
        return

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
            replace_file(self._path, json.dumps({"time": round(time.time(), 3), **activity}))


def read_heartbeat(path: Path) -> tuple[float, Activity]:
    """When a session last wrote it (seconds since the epoch; 0 for never), and what it did then."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        moment = float(data.pop("time"))
        known = {field.name for field in fields(Activity)}
        activity = Activity(**{name: value for name, value in data.items() if name in known})
        activity.losses = [float(loss) for loss in activity.losses]
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return 0.0, Activity()
    return moment, activity
