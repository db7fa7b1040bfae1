"""progress.json of a session: what the session does now, for other processes.

At most one write a second, replaced as a whole, without fsync: no decision depends on it. Readers ignore a file that is
missing, unreadable or older than the last event of the ledger.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import msgspec

from agent.files import replace_file
from agent.ledger.events import Event
from agent.ledger.state import State
from agent.observers.activity import Activity, advance, follow
from agent.observers.protocol import Observer

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
        advance(self._activity, phase, info)
        self._write()

    def _write(self) -> None:
        now = time.monotonic()
        if now - self._written >= INTERVAL:
            self._written = now
            activity = asdict(self._activity) | {"time": round(time.time(), 3)}
            activity |= {name: [round(v, 4) for v in activity[name]] for name in ("losses", "shares")}
            with suppress(OSError):  # a full disk: the next write tries again
                replace_file(self._path, json.dumps(activity))


def read_heartbeat(path: Path) -> Activity:
    """The activity that was last written; one of time 0 if it cannot be read."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Activity)
    except (OSError, ValueError):
        return Activity()
