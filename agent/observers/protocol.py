"""What watches a session: the class to derive from, and a group that isolates failures."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any

from agent.ledger.events import Event
from agent.ledger.state import State

log = logging.getLogger("overnight.observers")


class Observer:
    """Watches a session, which enters it as a context manager. This base class ignores everything."""

    def event(self, event: Event, state: State) -> None:
        """Called after each event of the ledger, with the state that includes the event."""

    def progress(self, phase: str, info: Mapping[str, Any]) -> None:
        """Called within a phase: startup, training, scoring, model, or note (``info["text"]`` is for people)."""

    def __enter__(self) -> Any:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return


class Observers(Observer):
    """Several observers as one. An observer that raises is switched off with one warning in session.log.

    Args:
        observers: entered in this order and left in reverse. Put ``SessionLog`` first, so that it logs the others.
    """

    def __init__(self, *observers: Observer):
        self._active = list(observers)
        self._entered: list[Observer] = []

    def __enter__(self) -> Observers:
        self._each(lambda observer: observer.__enter__())
        self._entered = list(self._active)
        return self

    def __exit__(self, *found: Any) -> None:
        self._active = self._entered[::-1]  # also those that were switched off since: they hold a terminal or a file
        self._each(lambda observer: observer.__exit__(*found))

    def event(self, event: Event, state: State) -> None:
        self._each(lambda observer: observer.event(event, state))

    def progress(self, phase: str, info: Mapping[str, Any]) -> None:
        self._each(lambda observer: observer.progress(phase, info))

    def _each(self, call: Callable[[Observer], Any]) -> None:
        for observer in tuple(self._active):
            try:
                call(observer)
            except Exception as error:
                self._active.remove(observer)
                log.warning("%s failed and is switched off: %r", type(observer).__name__, error)
