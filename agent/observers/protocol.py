"""The observer protocol, and observers that combine or silence others."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack, suppress
from typing import Any, Protocol

from agent.ledger.events import Event
from agent.ledger.state import State


class View(Protocol):
    """What the session tells while it works. Used as a context manager around it."""

    def event(self, event: Event, state: State) -> None:
        """After each event of the ledger."""
        ...

    def progress(self, phase: str, info: Mapping[str, Any]) -> None:
        """Now and then within a phase: startup, training, scoring, model, or note (a text for people)."""
        ...

    def __enter__(self) -> Any: ...
    def __exit__(self, *_: object) -> None: ...


class SilentView:
    """Shows nothing."""

    def event(self, event: Event, state: State) -> None:
        return

    def progress(self, phase: str, info: Mapping[str, Any]) -> None:
        return

    def __enter__(self) -> SilentView:
        return self

    def __exit__(self, *_: object) -> None:
        return


class Several:
    """Views side by side. What goes wrong in one of them is dropped."""

    def __init__(self, *views: View):
        self._views = views
        self._stack = ExitStack()

    def __enter__(self) -> Several:
        for view in self._views:
            self._stack.enter_context(view)
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)

    def event(self, event: Event, state: State) -> None:
        for view in self._views:
            with suppress(Exception):
                view.event(event, state)

    def progress(self, phase: str, info: Mapping[str, Any]) -> None:
        for view in self._views:
            with suppress(Exception):
                view.progress(phase, info)
