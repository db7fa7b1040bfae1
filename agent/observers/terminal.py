"""What a session shows while it works: a live panel on a terminal, one plain line per event anywhere else.

A view never ends a session: whatever goes wrong while drawing is dropped, and the night goes on without a picture.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from rich.console import Console, RenderableType
from rich.live import Live
from rich.text import Text

from agent import text
from agent.ledger.events import Event, Lost
from agent.ledger.state import State
from agent.observers.activity import Activity, advance, follow
from agent.observers.lines import plain_line
from agent.observers.panel import night_panel


class LiveView:
    """Draws on ``console``: live where it is a terminal, in plain lines where it is not."""

    def __init__(self, console: Console):
        self.console = console
        self.state = State()
        self.activity = Activity()
        self._seen = time.monotonic()
        self._noted = ""
        self._last: RenderableType = Text()
        self._live: Live | None = None

    def __enter__(self) -> LiveView:
        if self.console.is_terminal and not self.console.is_dumb_terminal:
            # stdout is data: it is left alone, and only what goes to the panel's own stream is kept above the panel
            self._live = Live(console=self.console, get_renderable=self._draw, refresh_per_second=4,
                              redirect_stdout=False, redirect_stderr=self.console.stderr)  # fmt: skip
            try:
                self._live.start()
            except Exception:
                self._live = None
        return self

    def __exit__(self, *_: object) -> None:
        live, self._live = self._live, None
        if live is not None:
            try:
                live.stop()
            except Exception:
                return

    def event(self, event: Event, state: State) -> None:
        self.state = state
        try:
            self._seen = time.monotonic()
            self.activity = follow(self.activity, event)
            if isinstance(event, Lost):
                self._note(self.activity.note)
            if self._live is None and (line := plain_line(event, state)):
                self.console.print(Text(line), soft_wrap=True, highlight=False)
        except Exception:
            return

    def progress(self, phase: str, info: Mapping[str, Any]) -> None:
        try:
            self._seen = time.monotonic()
            if phase == "note":
                self._note(str(info.get("text", "")))
            else:
                advance(self.activity, phase, info)
        except Exception:
            return

    def _note(self, words: str) -> None:
        new, self._noted, self.activity.note = words != self._noted, words, words
        if new and words and self._live is None:
            self.console.print(Text(f"note: {text.line(words)}"), soft_wrap=True, highlight=False)

    def _draw(self) -> RenderableType:
        """Called by the drawing thread, several times a second, so that clocks move between messages."""
        try:
            recent = max(0, min(6, self.console.height - 14))
            waited = time.monotonic() - self._seen
            activity = Activity(**vars(self.activity))
            activity.seconds += waited
            if activity.seconds_left is not None:
                activity.seconds_left = max(0.0, activity.seconds_left - waited)
            self._last = night_panel(self.state, activity, time.time(), recent)
        except Exception:
            return self._last
        return self._last
