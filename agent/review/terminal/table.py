"""A table without borders, with as many columns as the console is wide, and a list of labelled figures."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text


@dataclass(frozen=True)
class Column:
    """One column."""

    title: str
    cell: Callable[[Any], Text | str]  # of a row
    right: bool = False  # numbers
    least: int = 0  # width of the console from which on the column is shown
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
        shown = [column for column in self.columns if options.max_width >= column.least]
        titled = any(column.title for column in shown)
        table = Table(
            box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style=self.header, show_header=titled
        )  # fmt: skip
        for column in shown:
            table.add_column(column.title, justify="right" if column.right else "left", no_wrap=not column.cut)
        for row in self.rows:
            table.add_row(*(column.draw(row) for column in shown), style=self.style(row))
        yield table


def figures(rows: Iterable[tuple[str, Text]]) -> Table:
    """One row for each label and its value."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column()
    for label, value in rows:
        grid.add_row(label, value)
    return grid
