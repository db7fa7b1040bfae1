"""What a session shows while it runs: a live panel on a terminal, one line per event anywhere else."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Any

from rich.console import Console, RenderableType
from rich.constrain import Constrain
from rich.live import Live
from rich.text import Text

from agent import text
from agent.ledger.events import Event, Lost
from agent.ledger.state import State
from agent.observers.activity import Activity, advance, follow, later
from agent.observers.lines import plain_line
from agent.observers.panel import night_panel
from agent.observers.protocol import Observer

log = logging.getLogger("overnight.observers")


class LiveView(Observer):
    """Draws on ``console``."""

    def __init__(self, console: Console):
        self.console = console
        self.state = State()
        self.activity = Activity()
        self._seen = time.monotonic()
        self._noted = ""
        self._last: RenderableType = Text()
        self._live: Live | None = None
        self._broken = False

    def __enter__(self) -> LiveView:
        if self.console.is_terminal and not self.console.is_dumb_terminal:
            # stdout carries data and is not redirected; lines on the panel's own stream appear above the panel
            live = Live(console=self.console, get_renderable=self._draw, refresh_per_second=4, redirect_stdout=False,
                        redirect_stderr=self.console.stderr)  # fmt: skip
            live.start()
            self._live = live
        return self

    def __exit__(self, *_: object) -> None:
        live, self._live = self._live, None
        if live is not None:
            live.stop()

    def event(self, event: Event, state: State) -> None:
        self.state, self._seen = state, time.monotonic()
        self.activity = follow(self.activity, event)
        if isinstance(event, Lost):
            self._print_note()
        if line := plain_line(event, state):
            self._print(line)

    def progress(self, phase: str, info: Mapping[str, Any]) -> None:
        self._seen = time.monotonic()
        advance(self.activity, phase, info)
        if phase == "note":
            self._print_note()

    def _print_note(self) -> None:
        note, before = self.activity.note, self._noted
        self._noted = note
        if note and note != before:
            self._print(f"note: {text.line(note)}")

    def _print(self, line: str) -> None:
        if self._live is None:
            self.console.print(Text(line), soft_wrap=True, highlight=False)

    def _draw(self) -> RenderableType:
        """The panel. The drawing thread calls this several times a second, so that clocks advance between messages."""
        if self._broken:
            return self._last
        try:
            recent = max(0, min(6, self.console.height - 14))
            activity = later(self.activity, time.monotonic() - self._seen)
            panel = night_panel(self.state, activity, time.time(), recent)
            self._last = Constrain(panel, self.console.width - 2)  # room for the ^C that a terminal echoes
        except Exception as error:  # in the drawing thread: no caller can catch it
            self._broken = True
            log.warning("the panel failed and stays as it is: %r", error)
        return self._last
