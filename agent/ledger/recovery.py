"""Reads a ledger for commands that show a run, also one that is damaged or that another process writes.

A session never continues with a damaged ledger: it reads with ``agent.ledger.journal``.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from agent.ledger.events import Asked, Event, OfTrial, decode
from agent.ledger.journal import whole_lines
from agent.ledger.state import LedgerDamaged, State, StateBuilder
from agent.types import Proposal, Record

GONE = "(its line in the ledger is damaged)"


@contextmanager
def uncollected() -> Iterator[None]:
    """Exclude all objects that are created here from garbage collection, which would take a third of the time."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if collecting:
            gc.enable()


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
        """Apply all events that were added. A torn last line is damage only once another line follows."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._read)
                lines = whole_lines(file.read())
        except FileNotFoundError:
            return
        self._read += sum(len(line) + 1 for line in lines)
        for number, line in enumerate(lines, start=self._lines + 1):
            try:
                event = decode(line)
                _make_room(self.builder, event)
                self._apply(self.builder, event)
            except (LedgerDamaged, ValueError) as error:
                self.damage.append(f"{self._path}, line {number}, is damaged ({error}); the other lines are shown")
        self._lines += len(lines)


@uncollected()
def read_state(path: Path) -> tuple[State, list[str]]:
    """The state of a ledger, and a text for each damaged line. The state is empty if the file is missing."""
    tail = LedgerTail(path, StateBuilder.apply)
    tail.look()
    return tail.builder.state(), tail.damage


def _make_room(builder: StateBuilder, event: Event) -> None:
    """Add a placeholder for each trial whose ``asked`` line is lost, so that later trials keep their numbers."""
    if not isinstance(event, OfTrial) or event.trial - len(builder.records) > 1_000_000:
        return
    wanted = event.trial - 1 if isinstance(event, Asked) else event.trial
    while len(builder.records) < wanted:
        proposal = Proposal("unknown", "unknown", "", "", subject=GONE)
        builder.records.append(Record(len(builder.records) + 1, proposal))
