"""What can still be read of a damaged ledger: for people who look at a run; no session goes on with it."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from agent.ledger.events import Asked, Ended, Event, Resumed, SessionStarted, decode
from agent.ledger.journal import parse
from agent.ledger.state import LedgerDamaged, State, StateBuilder, fold
from agent.types import Proposal, Record

GONE = "(the line of the ledger that said what this was is damaged)"


@contextmanager
def uncollected() -> Iterator[None]:
    """Nothing that is made here is looked through for garbage, then or later. It is kept, and so much that looking,
    over and over and once more when Python ends, takes a third of the time."""
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
    """The state that a ledger describes, and what is damaged in it: one text a line, which names it. Missing: empty."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        data = b""
    try:
        return fold(parse(data, str(path))[0]), []
    except LedgerDamaged:
        return salvage(data, str(path))


def salvage(data: bytes, name: str) -> tuple[State, list[str]]:
    """The fold of every line that is an event, and what is wrong with the others."""
    builder = StateBuilder()
    problems = apply_sound(data, name, 1, builder, builder.apply)
    return builder.state(), problems


def apply_sound(data: bytes, name: str, first: int, builder: StateBuilder, apply: Callable[[Event], None]) -> list[str]:
    """Fold every line that is an event into ``builder``, and say what is wrong with the others.

    ``first`` is the number of the first line in ``data``, which is a part of the ledger.
    """
    problems = []
    for number, line in enumerate(data.split(b"\n")[:-1], start=first):
        try:
            event = decode(line)
            _make_room(builder, event)
            apply(event)
        except (LedgerDamaged, ValueError) as error:
            problems.append(f"{name}, line {number}, is damaged ({error}); what the other lines say is shown")
    return problems


def _make_room(builder: StateBuilder, event: Event) -> None:
    """Add a placeholder for each trial whose ``asked`` line is lost, so that later trials keep their numbers."""
    if isinstance(event, SessionStarted | Resumed | Ended) or event.trial - len(builder.records) > 1_000_000:
        return
    wanted = event.trial - 1 if isinstance(event, Asked) else event.trial
    while len(builder.records) < wanted:
        proposal = Proposal("unknown", "unknown", "", "", subject=GONE)
        builder.records.append(Record(len(builder.records) + 1, proposal))
