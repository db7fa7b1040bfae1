"""The append-only log of a run, and the fold that turns it into the state of the session.

One JSON line per event, fsynced before the step that it announces is relied upon. Nothing else is remembered: whoever
holds the ledger can rebuild everything. A torn last line (power loss in the middle of a write) is dropped; any other
line that does not parse is an error that names it.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from agent.errors import EnvironmentProblem
from agent.ledger.state import Event, Folder, LedgerDamaged, State
from agent.types import to_json

SCHEMA = 1
EVENTS = (
    "session",
    "asked",
    "candidate",
    "run_started",
    "measured",
    "judged",
    "told",
    "moved",
    "lost",
    "resumed",
    "ended",
)

_decode = msgspec.json.Decoder().decode
_decode_text = json.JSONDecoder().raw_decode


def parse(data: bytes, name: str = "ledger.jsonl") -> tuple[list[Event], int]:
    """The events of a ledger's bytes, and how many of the bytes hold whole lines.

    Raises:
        LedgerDamaged: a line other than a torn last one is not an event of this schema.
    """
    events: list[Event] = []
    good = 0
    lines = data.split(b"\n")
    for number, line in enumerate(lines, start=1):
        last = number == len(lines)
        if last:  # what stands behind the last line feed was never finished
            break
        try:
            event = event_of(line)
        except ValueError as error:
            if number == len(lines) - 1 and not lines[-1]:  # torn, then closed by a line feed of a file system
                break
            raise LedgerDamaged(
                f"{name}, line {number}: {error}. The lines before it are sound; "
                f"move the damaged line out of the file to go on without it."
            ) from None
        events.append(event)
        good += len(line) + 1
    return events, good


def event_of(line: bytes) -> Event:
    """One line of a ledger. Raises ``ValueError`` if it is no event of this schema."""
    try:
        event = _decode(line)  # three times as quick as json.loads(), and as exact
    except (ValueError, RecursionError):
        event = _lenient(line)
    if not isinstance(event, dict) or event.get("event") not in EVENTS:
        raise ValueError("not an event")
    if event.get("v") != SCHEMA:
        raise ValueError(f"schema {event.get('v')!r}, this version reads {SCHEMA}")
    return event


def _lenient(line: bytes) -> Any:
    """A line that holds what Python's json can write and strict JSON has no word for, such as half a surrogate.

    Raises:
        ValueError: it cannot be read, and why.
    """
    words = line.decode("utf-8", "surrogatepass").strip()
    try:
        event, end = _decode_text(words)  # json.loads() would guess the encoding of bytes
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if end != len(words):
        raise ValueError("more than one event")
    return event


def read(path: Path) -> list[Event]:
    """All events of a ledger file; [] for one that does not exist yet."""
    try:
        return parse(path.read_bytes(), str(path))[0]
    except FileNotFoundError:
        return []


class Ledger:
    """An open ledger: the only writer of its file."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.time):
        self.path = path
        self._clock = clock
        data = path.read_bytes() if path.exists() else b""
        events, good = parse(data, str(path))
        self.events: list[Event] = events
        self._folder = Folder()
        self._folder.take_all(events, str(path))
        try:
            self._file = path.open("r+b" if path.exists() else "w+b")
            self._file.truncate(good)
            self._file.seek(good)
            os.fsync(self._file.fileno())
            _sync_folder(path.parent)
        except OSError as error:
            raise EnvironmentProblem(f"cannot write {path}: {error.strerror}.") from error

    def append(self, event: str, **fields: Any) -> Event:
        """Write one event and return it once it is on disk.

        Raises:
            EnvironmentProblem: the disk is full or gone. The file is cut back to its last whole line.
        """
        line = {"v": SCHEMA, "event": event, "time": round(self._clock(), 3), **to_json(fields)}
        text = json.dumps(line, ensure_ascii=False, allow_nan=False).encode(errors="backslashreplace") + b"\n"
        start = self._file.tell()
        try:
            self._file.write(text)
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            self._file = _reopen(self.path, start)
            raise EnvironmentProblem(
                f"cannot write {self.path}: {error.strerror}. Free some space, then `overnight resume`."
            ) from error
        written: Event = json.loads(text)  # what a reader will see: half a surrogate, say, does not survive
        self.events.append(written)
        self._folder.take(written)
        return written

    @property
    def state(self) -> State:
        """The fold of everything written so far."""
        return self._folder.state()

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _reopen(path: Path, end: int) -> Any:
    """The buffered half of a failed write must not reach the file later: open it anew, cut at the last whole line."""
    file = path.open("r+b")
    file.truncate(end)
    file.seek(end)
    return file


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
