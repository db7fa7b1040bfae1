"""Reads what is left of a damaged ledger, for commands that show a run. A session never continues with it."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from agent.ledger.events import Asked, Event, OfSession, decode
from agent.ledger.journal import parse
from agent.ledger.state import LedgerDamaged, State, StateBuilder, fold
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


@uncollected()
def read_state(path: Path) -> tuple[State, list[str]]:
    """The state of a ledger, and a text for each damaged line. The state is empty if the file is missing."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        data = b""
    try:
        return fold(parse(data, str(path))[0]), []
    except LedgerDamaged:
        return salvage(data, str(path))


def salvage(data: bytes, name: str) -> tuple[State, list[str]]:
    """The fold of every line that is an event, and a text for each other line."""
    builder = StateBuilder()
    problems = apply_sound(data, name, 1, builder, builder.apply)
    return builder.state(), problems


def apply_sound(data: bytes, name: str, first: int, builder: StateBuilder, apply: Callable[[Event], None]) -> list[str]:
    """Fold every line that is an event; return a text for each other line.

    Args:
        data: a part of the ledger that ends with a line feed.
        name: of the file, for the texts.
        first: number of the first line in ``data``.
        builder: receives placeholders for trials whose first line is lost.
        apply: folds one event.
    """
    problems = []
    for number, line in enumerate(data.split(b"\n")[:-1], start=first):
        try:
            event = decode(line)
            _make_room(builder, event)
            apply(event)
        except (LedgerDamaged, ValueError) as error:
            problems.append(f"{name}, line {number}, is damaged ({error}); the other lines are shown")
    return problems


def _make_room(builder: StateBuilder, event: Event) -> None:
    """Add a placeholder for each trial whose ``asked`` line is lost, so that later trials keep their numbers."""
    if isinstance(event, OfSession) or event.trial - len(builder.records) > 1_000_000:
        return
    wanted = event.trial - 1 if isinstance(event, Asked) else event.trial
    while len(builder.records) < wanted:
        proposal = Proposal("unknown", "unknown", "", "", subject=GONE)
        builder.records.append(Record(len(builder.records) + 1, proposal))
