"""What can still be read of a damaged ledger: for people who look at a run; no session goes on with it."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from agent.ledger.journal import event_of, parse
from agent.ledger.state import Event, Folder, LedgerDamaged, State, fold
from agent.types import Proposal, Record

GONE = "(the line of the ledger that said what this was is damaged)"
DAMAGE = (LedgerDamaged, ValueError, LookupError, TypeError, AttributeError)  # a line is no event, or lacks something


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
    folder = Folder()
    problems = take_sound(data, name, 1, folder, folder.take)
    return folder.state(), problems


def take_sound(data: bytes, name: str, first: int, folder: Folder, take: Callable[[Event], None]) -> list[str]:
    """Have every line that is an event taken into ``folder``, and say what is wrong with the others.

    ``first`` is the number of the first line in ``data``, which is a part of the ledger.
    """
    problems = []
    for number, line in enumerate(data.split(b"\n")[:-1], start=first):
        try:
            event = event_of(line)
            _make_room(folder, event)
            take(event)
        except DAMAGE as error:
            problems.append(f"{name}, line {number}, is damaged ({error}); what the other lines say is shown")
    return problems


def _make_room(folder: Folder, event: Event) -> None:
    """A trial whose first line is lost gets a record that says so, so that those behind it keep their numbers."""
    trial: Any = event.get("trial")
    if not isinstance(trial, int) or trial - len(folder.records) > 1_000_000:
        return
    wanted = trial - 1 if event["event"] == "asked" else trial
    while len(folder.records) < wanted:
        proposal = Proposal("unknown", "unknown", "", "", subject=GONE)
        folder.records.append(Record(len(folder.records) + 1, proposal))
