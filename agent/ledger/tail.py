"""Follows a ledger that another process writes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from agent.ledger.events import Event, NotAnEvent, decode
from agent.ledger.recovery import apply_sound
from agent.ledger.state import StateBuilder


class LedgerTail:
    """Reads what was added to a ledger since the last look.

    Args:
        path: of the ledger; it may not exist yet.
        apply: called with ``builder`` and each readable event; folds the event.
    """

    def __init__(self, path: Path, apply: Callable[[StateBuilder, Event], None]):
        self.builder = StateBuilder()
        self.damage: list[str] = []  # one text for each line that cannot be read
        self._path, self._apply = path, apply
        self._read = self._lines = 0

    def look(self) -> None:
        """Apply all events that were added."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._read)
                data = file.read()
        except OSError:
            return
        data = data[: data.rfind(b"\n") + 1]
        if torn(data):  # an unreadable last line is damage only once another line follows
            data = data[: data.rfind(b"\n", 0, -1) + 1]
        first = self._lines + 1
        self._read, self._lines = self._read + len(data), self._lines + data.count(b"\n")
        self.damage += apply_sound(
            data, str(self._path), first, self.builder, lambda event: self._apply(self.builder, event)
        )


def torn(data: bytes) -> bool:
    """Whether the last of some complete lines is cut off."""
    try:
        if data:
            decode(data[data.rfind(b"\n", 0, -1) + 1 : -1])
    except NotAnEvent:
        return False
    except ValueError:
        return True
    return False
