"""One attempt in full."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from agent import text
from agent.curves import Point, curve_of
from agent.ledger.state import State
from agent.review.data.attempt import parent_runs
from agent.review.data.attempts import outcome_of, reason
from agent.review.data.diffs import size_of
from agent.review.data.failures import failure_lines
from agent.review.data.summary import phases
from agent.review.terminal.diff import diff_text
from agent.review.terminal.log import outcome_text
from agent.types import Measurement, Record

WIDTH = 60  # of a sparkline


def show_view(record: Record, state: State, run_dir: Path) -> RenderableType:
    proposal = record.proposal
    parts: list[RenderableType] = [_headline(record), *_failure(record, run_dir), *_figures(record, state)]
    if proposal.rationale.strip():
        parts += [_heading("why"), Padding(Text(text.clean(proposal.rationale).strip()), (0, 2))]
    if proposal.diff.strip():
        added, removed = size_of(proposal.diff)
        parts += [_heading(f"edit  +{added} −{removed}"), Padding(diff_text(proposal.diff), (0, 2))]
    if record.runs:
        parts += [_heading("runs"), Padding(runs_table(record.runs), (0, 2))]
    curve = curve_of(run_dir, record.runs)
    if curve:
        parts += [_heading("loss in training"), *_curves(curve, curve_of(run_dir, parent_runs(record, state)))]
    if any(run.self_reported for run in record.runs):
        parts += [Text(), Text(text.LEGEND, style="dim")]
    return Group(*parts)


def runs_table(runs: Sequence[Measurement]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    spent = [name for name in phases(runs) if name in ("startup", "training", "scoring", "overhead")]
    for name in ("role", "status"):
        table.add_column(name, no_wrap=True)
    for name in ("value", *spent, "memory", "seed"):
        table.add_column(name, justify="right", no_wrap=True)
    for run in runs:
        table.add_row(
            run.role,
            outcome_text(run.status),
            Text(text.number(run.value, run.self_reported)),
            *(Text(text.duration(run.seconds.get(name)) if run.role != "test" else "") for name in spent),
            Text(f"{run.peak_memory_gb:.1f} GB" if run.peak_memory_gb else text.MISSING),
            str(run.seed),
        )
    return table


def _headline(record: Record) -> Text:
    open_ = record.verdict is None and record.proposal.ending is None
    outcome = "under way" if open_ else outcome_of(record)
    subject = text.safe(record.proposal.subject or "(no subject)", "bold")
    return Text.assemble(f"trial {record.number}  ", outcome_text(outcome), "  ", subject)


def _failure(record: Record, run_dir: Path) -> list[RenderableType]:
    if record.status in ("ok", "lost"):
        return []
    lines = failure_lines(record, run_dir)
    shown = [Text(line, style="yellow") for line in lines]
    return [text.safe(reason(record), "bold yellow"), *(Padding(line, (0, 2)) for line in shown)]


def _figures(record: Record, state: State) -> list[RenderableType]:
    verdict, proposal = record.verdict, record.proposal
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column()
    if verdict is not None and verdict.value is not None:
        metric = text.line(state.session.metric)
        reported = any(run.self_reported for run in record.runs)
        value = f"{text.number(verdict.value, reported)} ({text.count(verdict.n, 'run')})"
        before = f"{text.number(verdict.best_before, reported)} ({text.count(verdict.n_before, 'run')})"
        grid.add_row(metric, Text(f"{value}, best before {before}"))
        grid.add_row("gain ± se", Text(text.gain(verdict.gain, verdict.gain_se)))
        grid.add_row("verdict", text.safe(verdict.reason))
    origin = [proposal.proposer, proposal.source, proposal.category, proposal.model]
    grid.add_row("from", text.safe(" · ".join(dict.fromkeys(part for part in origin if part))))
    commits = [("candidate", record.candidate), ("accepted", record.accepted), ("parent", record.parent)]
    grid.add_row("commits", text.safe(", ".join(f"{name} {sha[:10]}" for name, sha in commits if sha)))
    if record.ended is not None and record.started:
        grid.add_row("took", Text(text.duration(record.ended - record.started)))
    return [grid]


def _curves(curve: list[Point], parent: list[Point]) -> list[RenderableType]:
    """Both on one scale. The first tenth, where every loss falls from its start, would flatten the rest."""
    tails = [[p for p in points if p.progress >= 0.1] or points for points in (curve, parent)]
    losses = [p.loss for points in tails for p in points]
    rows: list[RenderableType] = []
    for name, points, style in (("this", tails[0], "cyan"), ("parent", tails[1], "dim")):
        if points:
            width = round(WIDTH * min(1.0, max(0.05, points[-1].progress)))  # a run that broke off is shorter
            spark = text.sparkline([p.loss for p in points], width, min(losses), max(losses))
            row = Text.assemble((f"{name:<7}", "dim"), (spark, style), f" {points[-1].loss:.4f}")
            rows.append(Padding(row, (0, 2)))
    return rows


def _heading(words: str) -> Text:
    return Text(f"\n{words}", style="bold")
