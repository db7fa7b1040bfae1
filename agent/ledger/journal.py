"""The append-only log of a run, and the fold that turns it into the state of the session.

One JSON line per event, fsynced before the step that it announces is relied upon. Nothing else is remembered: whoever
holds the ledger can rebuild everything. A torn last line (power loss in the middle of a write) is dropped; any other
line that does not parse is an error that names it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from agent.errors import EnvironmentProblem
from agent.ledger.events import Event, NotAnEvent, decode, encode
from agent.ledger.state import LedgerDamaged, State, StateBuilder


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
            event = decode(line)
        except ValueError as error:
            closed = number == len(lines) - 1 and not lines[-1]
            if closed and not isinstance(error, NotAnEvent):  # torn, then closed by a line feed of a file system
                break
            raise LedgerDamaged(
                f"{name}, line {number}: {error}. The lines before it are sound; "
                f"move the damaged line out of the file to go on without it."
            ) from None
        events.append(event)
        good += len(line) + 1
    return events, good


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
        self._builder = StateBuilder()
        self._builder.apply_all(events, str(path))
        try:
            self._file = path.open("r+b" if path.exists() else "w+b")
            self._file.truncate(good)
            self._file.seek(good)
            os.fsync(self._file.fileno())
            _sync_folder(path.parent)
        except OSError as error:
            raise EnvironmentProblem(f"cannot write {path}: {error.strerror}.") from error

    def append(self, event: Event) -> Event:
        """Write one event with the present time; return it, as a reader decodes it, once it is on disk.

        Raises:
            EnvironmentProblem: the disk is full or gone. The file is cut back to its last whole line.
        """
        line = encode(msgspec.structs.replace(event, time=round(self._clock(), 3)))
        start = self._file.tell()
        try:
            self._file.write(line)
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            self._file = _reopen(self.path, start)
            raise EnvironmentProblem(
                f"cannot write {self.path}: {error.strerror}. Free some space, then `overnight resume`."
            ) from error
        written = decode(line)
        self.events.append(written)
        self._builder.apply(written)
        return written

    @property
    def state(self) -> State:
        """The fold of everything written so far."""
        return self._builder.state()

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
