"""One attempt in full."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from agent import text
from agent.curves import Point
from agent.review.data.attempt import Details
from agent.review.data.times import PHASES
from agent.review.terminal.diff import diff_text
from agent.review.terminal.log import outcome_text
from agent.types import Repair

WIDTH = 60  # characters of a sparkline


def show_view(details: Details) -> RenderableType:
    """Render an attempt: outcome, figures, rationale, diff, runs and loss curve."""
    attempt = details.attempt
    parts: list[RenderableType] = [_headline(details), *_failure(details), _figures(details)]
    if details.rationale:
        parts += [_heading("why"), Padding(Text(details.rationale), (0, 2))]
    if attempt.record.proposal.diff.strip():
        parts.append(_heading(f"edit  +{details.added} −{details.removed}"))
        parts.append(Padding(diff_text(attempt.record.proposal.diff), (0, 2)))
    if attempt.repairs:
        parts += [_heading("repairs"), *(Padding(line, (0, 2)) for line in _repairs(attempt.record.repairs))]
    if attempt.record.runs:
        parts += [_heading("runs"), Padding(_runs_table(details), (0, 2))]
    if details.stacked:
        parts += [_heading("runs that carried it"), Padding(_stacked_table(details), (0, 2))]
    if details.curve:
        parts += [_heading("training loss"), *_curves(details.curve, details.parent_curve)]
    if attempt.self_reported:
        parts += [Text(), Text(text.LEGEND, style="dim")]
    return Group(*parts)


def _headline(details: Details) -> Text:
    attempt = details.attempt
    outcome = "under way" if details.under_way else attempt.outcome
    subject = Text(attempt.subject or "(no subject)", "bold")
    return Text.assemble(f"trial {attempt.trial}  ", outcome_text(outcome), "  ", subject)


def _failure(details: Details) -> list[RenderableType]:
    if details.attempt.status in ("ok", "lost"):
        return []
    lines = (Padding(Text(line, style="yellow"), (0, 2)) for line in details.failure)
    return [Text(details.attempt.reason, "bold yellow"), *lines]


def _repairs(repairs: Sequence[Repair]) -> Iterator[Text]:
    """One line for each version that failed before training, or reply without an edit."""
    for repair in repairs:
        failed = next((f"{run.status}: {run.reason}" for run in repair.runs), "")
        yield text.safe(failed or f"{repair.proposal.ending}: {repair.proposal.reason}", "yellow")


def _figures(details: Details) -> RenderableType:
    attempt, record = details.attempt, details.attempt.record
    verdict, proposal = record.verdict, record.proposal
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column()
    if verdict is not None and verdict.value is not None:
        value, before = (text.number(v, attempt.self_reported) for v in (verdict.value, verdict.best_before))
        if verdict.probability is None:  # means; else estimates of the model
            value, before = (
                f"{value} ({text.count(verdict.n, 'run')})",
                f"{before} ({text.count(verdict.n_before, 'run')})",
            )
        pairs = f", by {text.count(verdict.pairs, 'pair')}" if verdict.pairs else ""
        grid.add_row(details.metric, Text(f"{value}, best before {before}{pairs}"))
        grid.add_row("gain ± se", Text(text.gain(verdict.gain, verdict.gain_se)))
        grid.add_row("verdict", text.safe(verdict.reason))
    if (weight := details.weight) is not None:
        star = attempt.self_reported
        grid.add_row("worth now", Text(f"{text.gain(weight.gain, weight.se)}, a gain at {weight.probability:.0%}"))
        grid.add_row(
            "with it", Text(f"{text.number(weight.mean_in, star)}, mean of {text.count(weight.runs_in, 'run')}")
        )
        without = f"{text.number(weight.mean_out, star)}, mean of {text.count(weight.runs_out, 'run')}"
        grid.add_row("without it", Text(without if weight.runs_out else "no run yet"))
    origin = [attempt.proposer, attempt.source, attempt.category, proposal.model]
    grid.add_row("from", text.safe(" · ".join(dict.fromkeys(part for part in origin if part))))
    if attempt.idea:
        grid.add_row("idea", Text(attempt.idea))
    if attempt.loop:
        grid.add_row("model", Text(attempt.loop, "yellow"))
    commits = [("candidate", record.candidate), ("accepted", record.accepted), ("parent", record.parent)]
    grid.add_row("commits", text.safe(", ".join(f"{name} {sha[:10]}" for name, sha in commits if sha)))
    if record.ended is not None and record.started:
        grid.add_row("took", Text(text.duration(record.ended - record.started)))
    return grid


def _runs_table(details: Details) -> Table:
    runs, parents = details.attempt.record.runs, details.parent_values
    pairs = [run.seed for run in runs if run.seed in parents and run.role != "test"]
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    shown = [name for name in details.phases if name in PHASES]
    for name in ("role", "status"):
        table.add_column(name, no_wrap=True)
    for name in ("value", *(["parent"] if pairs else []), *shown, "memory", "seed"):
        table.add_column(name, justify="right", no_wrap=True)
    for run in runs:
        table.add_row(
            run.role,
            outcome_text(run.status),
            Text(text.number(run.value, run.self_reported)),
            *([Text(text.number(parents.get(run.seed) if run.seed in pairs else None))] if pairs else []),
            *(Text(text.duration(run.seconds.get(name)) if run.role != "test" else "") for name in shown),
            Text(f"{run.peak_memory_gb:.1f} GB" if run.peak_memory_gb else text.MISSING),
            str(run.seed),
        )
    return table


def _stacked_table(details: Details) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for name in ("status", "value", "seed", "with trials"):
        table.add_column(name, justify="right" if name in ("value", "seed") else "left")
    for stacked in details.stacked:
        run = stacked.run
        value = Text(text.number(run.value, run.self_reported))
        others = ", ".join(map(str, stacked.others)) or text.MISSING
        table.add_row(outcome_text(run.status), value, str(run.seed), others)
    return table


def _curves(curve: Sequence[Point], parent: Sequence[Point]) -> list[RenderableType]:
    """Both curves on one scale, without the first tenth of the budget: the initial fall would flatten the rest."""
    tails = [[p for p in points if p.progress >= 0.1] or points for points in (curve, parent)]
    losses = [p.loss for points in tails for p in points]
    rows: list[RenderableType] = []
    for name, points, style in (("this", tails[0], "cyan"), ("parent", tails[1], "dim")):
        if points:
            width = round(WIDTH * min(1.0, max(0.05, points[-1].progress)))  # shorter for a run that stopped early
            spark = text.sparkline([p.loss for p in points], width, min(losses), max(losses))
            row = Text.assemble((f"{name:<7}", "dim"), (spark, style), f" {points[-1].loss:.4f}")
            rows.append(Padding(row, (0, 2)))
    return rows


def _heading(words: str) -> Text:
    return Text(f"\n{words}", style="bold")
