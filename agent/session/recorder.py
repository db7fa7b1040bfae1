"""Writes events to the ledger and passes them to the observers."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence

from agent.ledger.events import Event
from agent.ledger.journal import Ledger
from agent.ledger.state import State
from agent.observers.protocol import Observer


class Recorder:
    """The ledger and the observers of a session, for all its threads."""

    def __init__(self, ledger: Ledger, view: Observer):
        self._ledger, self._view = ledger, view
        self._lock = threading.RLock()  # workers report progress from their own threads

    @property
    def state(self) -> State:
        with self._lock:
            return self._ledger.state

    @property
    def events(self) -> Sequence[Event]:
        return self._ledger.events

    def write(self, event: Event) -> None:
        """Append an event to the ledger, then show it."""
        with self._lock:
            self._view.event(self._ledger.append(event), self.state)

    def progress(self, phase: str, info: Mapping[str, object]) -> None:
        with self._lock:
            self._view.progress(phase, info)

    def note(self, text: str) -> None:
        """Show a text for the user, unless it is empty."""
        if text:
            self.progress("note", {"text": text})
