"""Reads and writes ledger.jsonl, the append-only log of a run.

Each event is one JSON line, and is on disk before the next step relies on it. A torn last line, from a power loss
during a write, is dropped. Any other line that does not parse is an error that names the line.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import msgspec

from agent.errors import EnvironmentProblem
from agent.ledger.events import Event, NotAnEvent, decode, encode
from agent.ledger.state import LedgerDamaged, State, StateBuilder


def whole_lines(data: bytes) -> list[bytes]:
    """The lines of a ledger, without a torn last one. Some file systems end a torn line with a line feed."""
    *lines, unfinished = data.split(b"\n")
    if lines and not unfinished:
        try:
            decode(lines[-1])
        except NotAnEvent:
            pass
        except ValueError:
            lines.pop()
    return lines


def parse(data: bytes, name: str = "ledger.jsonl") -> tuple[list[Event], int]:
    """Decode the bytes of a ledger.

    Returns:
        The events, and the number of bytes that hold whole lines.

    Raises:
        LedgerDamaged: a line is not an event of this schema, and is not a torn last line.
    """
    events, lines = [], whole_lines(data)
    for number, line in enumerate(lines, start=1):
        try:
            events.append(decode(line))
        except ValueError as error:
            raise LedgerDamaged(
                f"{name}, line {number}: {error}. The lines before it are sound. "
                f"Move the damaged line out of the file to continue without it."
            ) from None
    return events, sum(len(line) + 1 for line in lines)


def read(path: Path) -> list[Event]:
    """All events of a ledger file; [] if it does not exist."""
    try:
        return parse(path.read_bytes(), str(path))[0]
    except FileNotFoundError:
        return []


class Ledger:
    """An open ledger. It is the only writer of its file."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.time):
        self.path = path
        self._clock = clock
        data = path.read_bytes() if path.exists() else b""
        self.events, good = parse(data, str(path))
        self._builder = StateBuilder()
        self._builder.apply_all(self.events, str(path))
        try:
            path.touch()
            self._file = _opened(path, good)
            os.fsync(self._file.fileno())
            _sync_folder(path.parent)
        except OSError as error:
            raise EnvironmentProblem(f"cannot write {path}: {error.strerror}.") from error

    def append(self, event: Event) -> Event:
        """Write one event with the present time to the disk; return it as a reader decodes it.

        Raises:
            EnvironmentProblem: the disk is full or gone. The file still ends with its last whole line.
        """
        line = encode(msgspec.structs.replace(event, time=round(self._clock(), 3)))
        start = self._file.tell()
        try:
            self._file.write(line)
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            self._file = _opened(self.path, start)  # the buffer of a failed write must not reach the file later
            raise EnvironmentProblem(
                f"cannot write {self.path}: {error.strerror}. Free some space, then `overnight resume`."
            ) from error
        written = decode(line)
        self.events.append(written)
        self._builder.apply(written)
        return written

    @property
    def state(self) -> State:
        """The fold of all events so far."""
        return self._builder.state()

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _opened(path: Path, end: int) -> BinaryIO:
    """The file, cut at the end of its last whole line."""
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
