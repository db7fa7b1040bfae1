"""A table without borders, with as many columns as the console is wide; labelled figures; the frame of live views."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.measure import Measurement
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from agent import text


@dataclass(frozen=True)
class Column:
    """One column."""

    title: str
    cell: Callable[[Any], Text | str]  # of a row
    right: bool = False  # numbers
    least: int = 0  # width of the console from which on the column is shown; 0: always
    cut: bool = False  # whether a narrow console cuts its cells; others are shown whole

    def draw(self, row: Any) -> Text:
        found = self.cell(row)
        cell = found if isinstance(found, Text) else Text(found)
        if self.cut:
            cell.no_wrap, cell.overflow = True, "ellipsis"
        return cell


@dataclass(frozen=True)
class Columns:
    """The table: ``rows`` are any objects that the columns know."""

    columns: Sequence[Column]
    rows: Sequence[Any]
    style: Callable[[Any], str] = lambda _row: ""
    header: str = "bold"  # style of the titles

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        columns = self._fitting(options.max_width)
        titled = any(column.title for column, _ in columns)
        table = Table(
            box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style=self.header, show_header=titled
        )  # fmt: skip
        for column, _ in columns:
            table.add_column(column.title, justify="right" if column.right else "left", no_wrap=not column.cut)
        for k, row in enumerate(self.rows):
            table.add_row(*(cells[k] for _, cells in columns), style=self.style(row))
        yield table

    def _fitting(self, width: int) -> list[tuple[Column, list[Text]]]:
        """The columns with their cells. Where numbers would be cut, those with a bound go, the greatest bound first."""
        shown = [(column, list(map(column.draw, self.rows))) for column in self.columns if column.least <= width]
        optional = sorted((pair for pair in shown if pair[0].least), key=lambda pair: pair[0].least)
        while optional and sum(_least_width(*pair) + 2 for pair in shown) - 2 > width:
            shown.remove(optional.pop())
        return shown


def _least_width(column: Column, cells: Iterable[Text]) -> int:
    return 1 if column.cut else max([cell_len(column.title), *(cell.cell_len for cell in cells)])


@dataclass(frozen=True)
class WholeWords:
    """A text on one line. It is cut between words, so that no number loses digits."""

    text: Text

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        line, *rest = self.text.wrap(console, options.max_width)
        if rest:
            line = self.text.wrap(console, max(1, options.max_width - 2))[0]
            line.rstrip()
            line.append(" …")
        yield line

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement.get(console, options, self.text)


def figures(rows: Iterable[tuple[str, RenderableType]]) -> Table:
    """One row for each label and its value."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column()
    for label, value in rows:
        grid.add_row(label, value)
    return grid


def bar(share: float | None, words: str) -> Table:
    """A progress bar beside ``words``; it pulses while the share is unknown."""
    grid = Table.grid(padding=(0, 2))
    drawn = ProgressBar(total=None if share is None else 1.0, completed=share or 0.0, pulse=share is None, width=32)
    grid.add_row(drawn, WholeWords(Text(words)))
    return grid


def framed(parts: Iterable[RenderableType], tag: str, badge: Text | None = None, foot: str = "") -> Panel:
    """The panel of a live view: the badge is beside the title, ``foot`` in the lower border."""
    title = Text.assemble(" overnight ", text.safe(tag, "bold"), " ", badge or "", " " if badge else "")
    return Panel(
        Group(*parts), title=title, title_align="left", subtitle=Text(f" {foot} ", style="dim") if foot else None,
        subtitle_align="right", border_style="dim", padding=(0, 1),
    )  # fmt: skip
