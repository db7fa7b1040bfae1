"""The attempts of a run as a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, Group, JustifyMethod, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from agent import text
from agent.review.data.attempts import Attempt, select
from agent.review.data.night import Night

STYLES = {"keep": "green", "revert": "dim", "ok": "dim"}  # failures are yellow
NUMBERS = ("trial", "value", "runs", "cost")
LEAST_WIDTH = {"runs": 60, "cost": 76, "source": 100, "category": 100}  # of the console, to show the column
OUTCOME_WIDTH = 16


def log_table(night: Night, all: bool = False, status: str = "", source: str = "", words: str = "") -> RenderableType:
    """Render the accepted edits; with ``all`` or filters, every attempt that passes the filters."""
    filtered = bool(status or source or words)
    every = all or filtered
    attempts = select(night.attempts if every else night.kept, status, source, words)
    if not attempts:
        return Text(_nothing(night, filtered))
    table = _Attempts(attempts, text.line(night.summary.metric), every)
    return Group(table, Text(text.LEGEND, style="dim")) if night.summary.self_reported else table


@dataclass(frozen=True)
class _Attempts:
    """The table, with as many columns as the console is wide."""

    attempts: Sequence[Attempt]
    metric: str
    outcomes: bool  # whether to show the column of outcomes

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width = options.max_width - (OUTCOME_WIDTH if self.outcomes else 0)
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
        names = [name for name in _cells(self.attempts[0]) if width >= LEAST_WIDTH.get(name, 0)]
        names = [name for name in names if self.outcomes or name != "outcome"]
        for name in names:
            title = {"value": self.metric, "outcome": ""}.get(name, name)
            justify: JustifyMethod = "right" if name in NUMBERS else "left"
            table.add_column(title, justify=justify, no_wrap=name != "edit")  # a narrow console cuts only the edit
        for attempt in self.attempts:
            cells = _cells(attempt)
            table.add_row(*(cells[name] for name in names), style="dim" if attempt.outcome == "revert" else "")
        yield table


def _cells(attempt: Attempt) -> dict[str, Text]:
    """The cells of one row by column."""
    edit = Text(attempt.subject or "(no subject)", no_wrap=True, overflow="ellipsis")
    if attempt.repairs:
        edit.append(f" · {text.count(attempt.repairs, 'repair')}", "dim")
    if attempt.problem:
        edit.append(" · ").append(attempt.problem, "dim")
    return {
        "trial": Text(str(attempt.trial)),
        "outcome": outcome_text(attempt.outcome),
        "value": Text(text.number(attempt.value, attempt.self_reported)),
        "gain ± se": Text(text.gain(attempt.gain, attempt.gain_se)),
        "runs": Text(str(attempt.runs)),
        "cost": Text(text.duration(attempt.seconds or None, brief=True)),
        "source": Text(text.line(attempt.source, 12)),
        "category": Text(text.line(attempt.category or text.MISSING, 16)),
        "edit": edit,
    }


def outcome_text(outcome: str) -> Text:
    """Colour an outcome."""
    return Text(outcome.replace("_", " "), style=STYLES.get(outcome, "yellow"))


def _nothing(night: Night, filtered: bool) -> str:
    if filtered:
        outcomes = sorted({attempt.outcome for attempt in night.attempts})
        sources = sorted({attempt.source for attempt in night.attempts} - {""})
        there_are = ", ".join([*outcomes, *sources])
        return "No attempt matches." + (f" There are: {there_are}." if there_are else "")
    tried = len(night.attempts)
    if not tried:
        return "No attempt has been judged yet."
    return (
        f"No edit was kept: none of {text.count(tried, 'attempt')} gained more than the noise explains. "
        f"--all lists them."
    )
