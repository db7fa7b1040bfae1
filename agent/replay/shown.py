"""The tables of a replay or promotion: drawn on a terminal, or as a page that loads nothing from the network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.table import Table as RichTable
from rich.text import Text

from agent import text
from agent.review.report.html import NARROW, WIDE, render_page

STYLES = {
    "reproduced": "green", "holds": "green", "not reproduced": "red", "does not hold": "red", "reverses": "red",
    "fails": "red", "cannot tell": "yellow", "shrinks": "yellow",
}  # fmt: skip
BADGES = {"green": "keep", "red": "failed"}  # style: class of the style sheet


@dataclass(frozen=True)
class Row:
    """One commit or edit."""

    cells: tuple[str, ...]
    outcome: str
    what: str
    reason: str

    @property
    def style(self) -> str:
        return STYLES.get(self.outcome, "dim")

    @property
    def badge(self) -> str:
        return BADGES.get(self.style, "revert")


@dataclass(frozen=True)
class Table:
    """Columns of figures, then the outcome, then the commit or edit."""

    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    title: str = ""
    what: str = "commit"  # name of the last column


@dataclass(frozen=True)
class Chart:
    """A picture of the tables."""

    title: str
    draw: Callable[[int], str]  # the SVG of this width; "" without a value
    key: tuple[tuple[str, str], ...]  # class of a stroke in the style sheet, and its meaning


@dataclass(frozen=True)
class Shown:
    """Everything that is shown of a result, formatted but not sanitised."""

    title: str
    about: tuple[str, ...]
    headline: str = ""
    tables: tuple[Table, ...] = ()
    chart: Chart | None = None
    notes: tuple[str, ...] = ()
    legend: str = ""


def terminal(shown: Shown) -> RenderableType:
    parts: list[RenderableType] = []
    for table in shown.tables:
        parts += [_terminal_table(table), Text()]
    parts.append(text.safe(shown.headline, "bold"))
    parts += [text.safe(note, "yellow") for note in shown.notes]
    parts += [Text(shown.legend, style="dim")] if shown.legend else []
    return Group(*parts)


def _terminal_table(table: Table) -> RichTable:
    """On a narrow terminal, the last column is cut."""
    drawn = RichTable(
        title=text.line(table.title) or None, title_justify="left", title_style="bold", box=None, pad_edge=False,
        padding=(0, 2, 0, 0), header_style="bold",
    )  # fmt: skip
    for name in table.columns:
        drawn.add_column(name, justify="left" if "gain" in name else "right", no_wrap="gain" not in name)
    drawn.add_column("", no_wrap=True)
    drawn.add_column(table.what)
    for row in table.rows:
        what = Text.assemble(text.safe(row.what), ("  " + text.line(row.reason), "dim"))
        what.no_wrap, what.overflow = True, "ellipsis"
        drawn.add_row(*map(text.safe, row.cells), text.safe(row.outcome, row.style), what)
    return drawn


def page(shown: Shown, live_tag: str = "", stamp: str = "") -> str:
    """The HTML of a result.

    Args:
        live_tag: name of the directory, if a server sends the page and keeps it up to date.
        stamp: of the ledger, for the server's page.
    """
    pictures = [shown.chart.draw(width) for width in (WIDE, NARROW)] if shown.chart else ["", ""]
    return render_page(
        "comparisons.html", live=bool(live_tag), place=live_tag, stamp=stamp, shown=shown, pictures=pictures
    )
