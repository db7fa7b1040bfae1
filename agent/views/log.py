"""The edits of a run, as a table for people and as a list for programs.

``log_json`` is schema ``overnight.log/1``: a list with one object per finished attempt, in order. Keys:
schema, trial, decision (keep, revert), status (ok, a failure, or why it never ran), value (null for a failure),
best_before, gain (positive is better), gain_se, commit (the attempt's; null if there is none), accepted (on the branch;
null), runs (how many on the validation split), seconds (of all its runs), subject, category, source, proposer, reason,
self_reported. Keys may be added within a schema; none changes its meaning.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

from rich.cells import cell_len, set_cell_size
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.segment import Segment
from rich.style import Style
from rich.text import Text

from agent.ledger import State
from agent.types import Proposal, Record
from agent.views import text
from agent.views.diff import diff_lines
from agent.views.summary import cost, summarize, test_problem

SCHEMA = "overnight.log/1"
STYLES = {"keep": "green", "revert": "dim", "ok": "dim"}  # failures are yellow


def log_json(state: State, status: str = "", source: str = "", words: str = "") -> list[dict[str, Any]]:
    return [{"schema": SCHEMA, **attempt_json(record)} for record in select(state.finished, status, source, words)]


def attempt_json(record: Record) -> dict[str, Any]:
    verdict, proposal = record.verdict, record.proposal
    return {
        "trial": record.number,
        "decision": record.decision,
        "status": record.status,
        "value": verdict.value if verdict else None,
        "best_before": verdict.best_before if verdict else None,
        "gain": verdict.gain if verdict else None,
        "gain_se": verdict.gain_se if verdict else None,
        "commit": record.candidate,
        "accepted": record.accepted,
        "runs": sum(1 for run in record.runs if run.role != "test"),
        "seconds": round(cost(record), 3),
        "subject": text.line(proposal.subject),
        "category": text.line(proposal.category),
        "source": text.line(proposal.source),
        "proposer": text.line(proposal.proposer),
        "reason": text.line(reason(record)),
        "self_reported": any(run.self_reported for run in record.runs),
    }


def reason(record: Record) -> str:
    """Why it ended as it did: the failure before the verdict, which would only repeat that it failed."""
    failed = next((run.reason for run in record.runs if run.status != "ok" and run.reason), "")
    return record.proposal.reason or failed or (record.verdict.reason if record.verdict else "")


def select(records: Iterable[Record], status: str = "", source: str = "", words: str = "") -> list[Record]:
    """The records with this status (or decision), from this source, and with these words in what was proposed."""
    return [
        record
        for record in records
        if (not status or status in (record.status, record.decision))
        and (not source or record.proposal.source == source)
        and (not words or words.lower() in _proposed(record.proposal).lower())
    ]


def _proposed(proposal: Proposal) -> str:
    """What was said of an edit, and the lines that it changes: a subject names only the first of many values."""
    changed = [row for kind, row in diff_lines(proposal.diff) if kind in ("added", "removed")]
    return "\n".join((proposal.subject, proposal.rationale, proposal.category, *changed))


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


def outcome_of(record: Record) -> str:
    """The decision about a measured attempt, or why it has no value."""
    return record.decision if record.status == "ok" else record.status


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
