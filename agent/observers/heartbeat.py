"""progress.json of a session: what the session does now, for other processes.

At most one write a second, replaced as a whole, without fsync: no decision depends on it. Readers ignore a file that is
missing, unreadable or older than the last event of the ledger.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec

from agent.files import replace_file
from agent.ledger.events import Event
from agent.ledger.state import State
from agent.observers.activity import Activity, advance, follow
from agent.observers.protocol import Observer

INTERVAL = 1.0  # seconds


@dataclass
class _Beat(Activity):
    time: float = 0.0


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
            activity = asdict(self._activity)
            activity |= {name: [round(v, 4) for v in activity[name]] for name in ("losses", "shares")}
            with suppress(OSError):  # a full disk: the next write tries again
                replace_file(self._path, json.dumps({"time": round(time.time(), 3), **activity}))


def read_heartbeat(path: Path) -> tuple[float, Activity]:
    """Time of the last write in seconds since the epoch, 0 if unreadable, and the activity at that time."""
    try:
        beat = msgspec.json.decode(path.read_bytes(), type=_Beat)
    except (OSError, ValueError):
        return 0.0, Activity()
    return beat.time, beat
