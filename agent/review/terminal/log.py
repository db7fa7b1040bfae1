"""The attempts of a run as a table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial

from rich.cells import cell_len, set_cell_size
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.segment import Segment
from rich.style import Style
from rich.text import Text

from agent import text
from agent.ledger.state import State
from agent.review.data.attempts import outcome_of, reason, select
from agent.review.data.summary import cost, summarize, test_problem
from agent.types import Record

STYLES = {"keep": "green", "revert": "dim", "ok": "dim"}  # failures are yellow


def log_table(state: State, all: bool = False, status: str = "", source: str = "", words: str = "") -> RenderableType:
    """The accepted edits; with ``all`` or a filter, every attempt (that passes it)."""
    summary = summarize(state)
    filtered = bool(status or source or words)
    all = all or filtered
    records = select(state.finished if all else state.kept, status, source, words)
    if not records:
        return Text(_nothing(state, filtered))
    table = _Attempts(records, text.line(summary.metric), all)
    return Group(table, Text(text.LEGEND, style="dim")) if summary.self_reported else table


Cell = list[tuple[str, str]]  # (words, style)


@dataclass(frozen=True)
class _Attempts:
    """The table, with as many columns as the console is wide. Laid out here, of plain strings: Rich's own table takes
    1 ms a row, and its texts half of that."""

    records: list[Record]
    metric: str
    all: bool

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width = options.max_width - (16 if self.all else 0)
        hidden = {name for name, least in _LEAST_WIDTH.items() if width < least} | (set() if self.all else {"outcome"})
        shown = [k for k, name in enumerate(_COLUMNS) if name not in hidden]
        titles = {"value": self.metric, "outcome": ""}
        rows: list[tuple[list[Cell], str]] = [([[(titles.get(name, name), "bold")] for name in _COLUMNS], "")]
        for record in self.records:
            rows.append((_cells(record), "dim" if record.status == "ok" and record.decision != "keep" else ""))
        widths = [max(_width(cells[k]) for cells, _ in rows) for k in shown[:-1]]
        widths.append(max(8, options.max_width - sum(widths) - 2 * len(widths)))
        style = lru_cache(lambda under, over: console.get_style(under) + console.get_style(over))
        for cells, under in rows:
            yield from _laid_out([cells[k] for k in shown], shown, widths, partial(style, under))


def _laid_out(cells: list[Cell], columns: list[int], widths: list[int], style: Callable[[str], Style]) -> list[Segment]:
    """One line: every cell as wide as its column, two spaces between them, the last cut where the console ends.

    As few segments as there are changes of style, since Rich looks at each of them several times.
    """
    pieces: Cell = []
    for column, cell, width in zip(columns, cells, widths, strict=True):
        gap = " " * (width - _width(cell))
        if column == columns[-1]:
            pieces += cell if gap or _width(cell) == width else _cut(cell, width)
        elif _COLUMNS[column] in _RIGHT:
            pieces += [(gap, ""), *cell, ("  ", "")]
        else:
            pieces += [*cell, (gap + "  ", "")]
    merged: list[list[str]] = []
    for words, name in pieces:
        if merged and (merged[-1][1] == name or not words.strip()):  # space looks alike in every style of the table
            merged[-1][0] += words
        else:
            merged.append([words, name])
    return [*(Segment(words, style(name)) for words, name in merged), Segment.line()]


def _width(cell: Cell) -> int:
    """Columns of the terminal."""
    return sum(len(words) if words.isascii() else cell_len(words) for words, _ in cell)


def _cut(cell: Cell, width: int) -> Cell:
    """The beginning of a cell, and an ellipsis."""
    left, found = width - 1, []
    for words, name in cell:
        found.append((set_cell_size(words, left) if cell_len(words) > left else words, name))
        left -= cell_len(found[-1][0])
    return [*found, ("…", found[-1][1])]


_RIGHT = ("trial", "value", "runs", "cost")
_COLUMNS = ("trial", "outcome", "value", "gain ± se", "runs", "cost", "source", "category", "edit")
_LEAST_WIDTH = {"runs": 60, "cost": 76, "source": 100, "category": 100}  # of the console, to show the column


def _cells(record: Record) -> list[Cell]:
    """What stands in every column, in order."""
    verdict, outcome = record.verdict, outcome_of(record)
    runs = [run for run in record.runs if run.role != "test"]
    reported = any(run.self_reported for run in record.runs)
    why = reason(record) if record.status != "ok" else test_problem(record.runs)
    return [
        [(str(record.number), "")],
        [(outcome.replace("_", " "), _style(outcome))],
        [(text.number(verdict.value if verdict else None, reported), "")],
        [(text.gain(verdict.gain, verdict.gain_se) if verdict else text.gain(None), "")],
        [(str(len(runs)), "")],
        [(text.duration(cost(record), brief=True) if runs else text.MISSING, "")],
        [(text.line(record.proposal.source, 12), "")],
        [(text.line(record.proposal.category or text.MISSING, 16), "")],
        [
            (text.line(record.proposal.subject or "(no subject)"), ""),
            *([(" · ", ""), (text.line(why), "dim")] if why else []),
        ],
    ]


def outcome_text(outcome: str) -> Text:
    return Text(outcome.replace("_", " "), style=_style(outcome))


def _style(outcome: str) -> str:
    return STYLES.get(outcome, "yellow")


def _nothing(state: State, filtered: bool) -> str:
    if filtered:
        outcomes = {outcome_of(record) for record in state.finished}
        sources = {record.proposal.source for record in state.finished}
        said = ", ".join(text.line(name) for name in sorted(outcomes) + sorted(sources) if name)
        return "No attempt matches." + (f" There are: {said}." if said else "")
    tried = len(state.finished)
    if not tried:
        return "No attempt has been judged yet."
    return (
        f"No edit was kept: none of {text.count(tried, 'attempt')} was better than the branch by more than the noise "
        f"allows. --all lists them."
    )
