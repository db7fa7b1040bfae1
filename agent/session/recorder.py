"""Writes events to the ledger and passes them to the observers."""

from __future__ import annotations

import queue
import threading
from collections.abc import Mapping, Sequence

from agent.ledger.events import Event
from agent.ledger.journal import Ledger
from agent.ledger.state import State
from agent.observers.protocol import Observer


class Recorder:
    """The ledger and the observers of a session. Only the thread of the session calls ``write``."""

    def __init__(self, ledger: Ledger, view: Observer):
        self._ledger, self._view = ledger, view
        self._posted: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._showing = threading.Lock()  # workers report progress from their own threads

    @property
    def state(self) -> State:
        return self._ledger.state

    @property
    def events(self) -> Sequence[Event]:
        return self._ledger.events

    def post(self, event: Event) -> None:
        """Keep an event of another thread until the next ``write`` or ``flush``."""
        self._posted.put(event)

    def flush(self) -> None:
        """Write the events of other threads."""
        while not self._posted.empty():
            self._append(self._posted.get())

    def write(self, event: Event) -> None:
        """Append an event to the ledger, then show it."""
        self.flush()
        self._append(event)

    def _append(self, event: Event) -> None:
        written = self._ledger.append(event)
        with self._showing:
            self._view.event(written, self.state)

    def progress(self, phase: str, info: Mapping[str, object]) -> None:
        with self._showing:
            self._view.progress(phase, info)

    def note(self, text: str) -> None:
        """Show a text for the user, unless it is empty."""
        if text:
            self.progress("note", {"text": text})
