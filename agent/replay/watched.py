"""A replay or promotion seen from outside: its ledger, read anew for every picture."""

from __future__ import annotations

import time
from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from agent import text
from agent.replay.recorded import Recorded, read_recorded
from agent.replay.shown import terminal
from agent.review.terminal.runs import condition_text
from agent.rundir.directory import RunDirectory


class WatchedReplay:
    """Draws the present state of a replay or promotion."""

    def __init__(self, directory: RunDirectory):
        self.directory = directory
        self.damage: tuple[str, ...] = ()  # one text for each ledger line that cannot be read

    def picture(self, _width: int, height: int) -> RenderableType:
        """The panel for a terminal of ``height`` lines; 0: drawn once, nothing can be pressed."""
        found = read_recorded(self.directory)
        self.damage = found.damage
        bar = Table.grid(padding=(0, 2))
        words = f"{found.done} of at most {text.count(found.done + found.left, 'run')}"
        bar.add_row(ProgressBar(total=max(1, found.done + found.left), completed=found.done, width=32), Text(words))
        parts: list[RenderableType] = [bar, *(Text(line, style="cyan") for line in under_way(found, time.time()))]
        parts += [Text(), terminal(found.shown)] if found.shown else [Text("getting ready")]
        running = found.condition == "running"
        foot = " q quits, the runs continue " if running and height else ""
        title = Text.assemble(" overnight ", text.safe(found.tag, "bold"), " ", condition_text(found.condition), " ")
        return Panel(
            Group(*parts), title=title, title_align="left", subtitle=Text(foot, style="dim") if foot else None,
            subtitle_align="right", border_style="dim", padding=(0, 1),
        )  # fmt: skip


def under_way(found: Recorded, now: float) -> Iterator[str]:
    """One line for each run in progress."""
    for name, since in found.under_way:
        yield f"{text.line(name, 90)} · {text.duration(now - since)}"
