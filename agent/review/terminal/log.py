"""The trials of a session as a table."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.text import Text

from agent import text
from agent.review.data.attempts import Attempt, select
from agent.review.data.night import Night
from agent.review.terminal.table import Column, Columns

STYLES = {"keep": "green", "revert": "dim", "ok": "dim"}  # failures are yellow
OUTCOME_WIDTH = 16


def log_table(night: Night, all: bool = False, status: str = "", source: str = "", words: str = "") -> RenderableType:
    """Render the kept edits; with ``all`` or filters, every trial that passes the filters."""
    filtered = bool(status or source or words)
    every = all or filtered
    attempts = select(night.attempts if every else night.kept, status, source, words)
    if not attempts:
        return Text(_nothing(night, filtered))
    columns = _columns(text.line(night.summary.metric), every)
    table = Columns(columns, attempts, style=lambda a: "dim" if a.outcome == "revert" else "")
    return Group(table, Text(text.LEGEND, style="dim")) if night.summary.self_reported else table


def _columns(metric: str, outcomes: bool) -> list[Column]:
    """The columns of attempts; ``outcomes``: with the column of outcomes."""
    width = OUTCOME_WIDTH if outcomes else 0
    outcome = [Column("", lambda a: outcome_text(a.outcome))] if outcomes else []
    return [
        Column("trial", lambda a: str(a.trial), right=True),
        *outcome,
        Column(metric, lambda a: text.number(a.value, a.self_reported), right=True),
        Column("gain ± se", lambda a: text.gain(a.gain, a.gain_se)),
        Column("runs", lambda a: str(a.runs), right=True, least=width + 60),
        Column("cost", lambda a: text.duration(a.seconds or None, brief=True), right=True, least=width + 76),
        Column("source", lambda a: text.line(a.source, 12), least=width + 100),
        Column("category", lambda a: text.line(a.category or text.MISSING, 16), least=width + 100),
        Column("edit", _edit, cut=True),
    ]


def _edit(attempt: Attempt) -> Text:
    edit = Text(attempt.subject or "(no subject)")
    if attempt.repairs:
        edit.append(f" · {text.count(attempt.repairs, 'repair')}", "dim")
    if attempt.problem:
        edit.append(" · ").append(attempt.problem, "dim")
    return edit


def outcome_text(outcome: str) -> Text:
    """Colour an outcome."""
    return Text(outcome.replace("_", " "), style=STYLES.get(outcome, "yellow"))


def _nothing(night: Night, filtered: bool) -> str:
    if filtered:
        outcomes = sorted({attempt.outcome for attempt in night.attempts})
        sources = sorted({attempt.source for attempt in night.attempts} - {""})
        there_are = ", ".join([*outcomes, *sources])
        return "No trial matches." + (f" There are: {there_are}." if there_are else "")
    tried = len(night.attempts)
    if not tried:
        return "No trial has been judged yet."
    return (
        f"No edit was kept: none of {text.count(tried, 'trial')} gained more than the noise explains. --all lists them."
    )
