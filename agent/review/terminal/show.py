"""One trial in full."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from agent import text
from agent.curves import Point
from agent.review.data.attempt import Details
from agent.review.data.times import PHASES, phases
from agent.review.terminal.diff import diff_text
from agent.review.terminal.log import outcome_text
from agent.review.terminal.table import Column, Columns, figures
from agent.types import Measurement, Repair

WIDTH = 60  # characters of a sparkline


def show_view(details: Details) -> RenderableType:
    """Render a trial: outcome, figures, rationale, diff, runs and loss curve."""
    parts: list[RenderableType] = [_headline(details), *_failure(details), figures(_figures(details))]
    for title, contents in _sections(details):
        parts += [Text(f"\n{title}", style="bold"), *map(_indented, contents)]
    if details.attempt.self_reported:
        parts += [Text(), Text(text.LEGEND, style="dim")]
    return Group(*parts)


def _sections(details: Details) -> Iterator[tuple[str, Iterable[RenderableType]]]:
    record = details.attempt.record
    if details.rationale:
        yield "why", [Text(details.rationale)]
    if record.proposal.diff.strip():
        added, removed = details.size
        yield f"edit  +{added} −{removed}", [diff_text(record.proposal.diff)]
    if record.repairs:
        yield "repairs", _repairs(record.repairs)
    if record.runs:
        yield "runs", [_runs_table(details)]
    if details.stacked:
        yield "runs that carried it", [Columns(STACKED, details.stacked, header="dim")]
    if details.curve:
        yield "training loss", _curves(details.curve, details.parent_curve)


def _indented(content: RenderableType) -> Padding:
    return Padding(content, (0, 2))


def _headline(details: Details) -> Text:
    attempt = details.attempt
    over = attempt.record.verdict is not None or attempt.record.proposal.ending is not None
    outcome = attempt.outcome if over else "under way"
    subject = Text(attempt.subject or "(no subject)", "bold")
    return Text.assemble(f"trial {attempt.trial}  ", outcome_text(outcome), "  ", subject)


def _failure(details: Details) -> list[RenderableType]:
    if details.attempt.status in ("ok", "lost"):
        return []
    lines = (_indented(Text(line, style="yellow")) for line in details.failure)
    return [Text(details.attempt.reason, "bold yellow"), *lines]


def _repairs(repairs: Sequence[Repair]) -> Iterator[Text]:
    """One line for each version that failed before training, or reply without an edit."""
    for repair in repairs:
        failed = next((f"{run.status}: {run.reason}" for run in repair.runs), "")
        yield text.safe(failed or f"{repair.proposal.ending}: {repair.proposal.reason}", "yellow")


def _figures(details: Details) -> Iterator[tuple[str, Text]]:
    attempt, record, weight = details.attempt, details.attempt.record, details.weight
    verdict, star = record.verdict, attempt.self_reported
    if verdict is not None and verdict.value is not None:
        value, before = text.number(verdict.value, star), text.number(verdict.best_before, star)
        if verdict.probability is None:  # means
            value += f" ({text.count(verdict.n, 'run')})"
            before += f" ({text.count(verdict.n_before, 'run')})"
        else:  # the runs below have other values: gains add up to the estimate
            value = f"estimated {value}"
        pairs = f", by {text.count(verdict.pairs, 'pair')}" if verdict.pairs else ""
        yield details.metric, Text(f"{value}, best before {before}{pairs}")
        yield "gain ± se", Text(text.gain(verdict.gain, verdict.gain_se))
        yield "verdict", text.safe(verdict.reason)
    if weight is not None:
        yield "worth now", Text(f"{text.gain(weight.gain, weight.se)}, a gain at {weight.probability:.0%}")
        yield "with it", Text(f"{text.number(weight.mean_in, star)}, mean of {text.count(weight.runs_in, 'run')}")
        without = f"{text.number(weight.mean_out, star)}, mean of {text.count(weight.runs_out, 'run')}"
        yield "without it", Text(without if weight.runs_out else "no run yet")
    origin = (attempt.proposer, attempt.source, attempt.category, record.proposal.model)
    yield "from", text.safe(" · ".join(dict.fromkeys(filter(None, origin))))
    if attempt.idea:
        yield "idea", Text(attempt.idea)
    if attempt.loop:
        yield "model", Text(attempt.loop, "yellow")
    commits = (("candidate", record.candidate), ("accepted", record.accepted), ("parent", record.parent))
    yield "commits", text.safe(", ".join(f"{name} {sha[:10]}" for name, sha in commits if sha))
    if record.ended is not None and record.started:
        yield "took", Text(text.duration(record.ended - record.started))


def _runs_table(details: Details) -> Columns:
    runs, parents = details.attempt.record.runs, details.parent_values
    paired = {run.seed for run in runs if run.seed in parents and run.role != "test"}
    parent = [Column("parent", lambda r: text.number(parents[r.seed] if r.seed in paired else None), True)]
    times = [Column(name, partial(_time, name), True) for name in phases(runs) if name in PHASES]
    columns = [
        Column("role", lambda r: r.role),
        Column("status", lambda r: outcome_text(r.status)),
        Column("value", lambda r: text.number(r.value, r.self_reported), True),
        *(parent if paired else []),
        *times,
        Column("memory", lambda r: f"{r.peak_memory_gb:.1f} GB" if r.peak_memory_gb else text.MISSING, True),
        Column("seed", lambda r: str(r.seed), True),
    ]
    return Columns(columns, runs, header="dim")


def _time(phase: str, run: Measurement) -> str:
    return text.duration(run.seconds.get(phase)) if run.role != "test" else ""


STACKED = (
    Column("status", lambda s: outcome_text(s.run.status)),
    Column("value", lambda s: text.number(s.run.value, s.run.self_reported), True),
    Column("seed", lambda s: str(s.run.seed), True),
    Column("with trials", lambda s: ", ".join(map(str, s.others)) or text.MISSING, cut=True),
)


def _curves(curve: Sequence[Point], parent: Sequence[Point]) -> Iterator[Text]:
    """Both curves on one scale, without the first tenth of the budget: the initial fall would flatten the rest."""
    tails = [[p for p in points if p.progress >= 0.1] or points for points in (curve, parent)]
    losses = [p.loss for points in tails for p in points]
    for name, points, style in (("this", tails[0], "cyan"), ("parent", tails[1], "dim")):
        if points:
            width = round(WIDTH * min(1.0, max(0.05, points[-1].progress)))  # shorter for a run that stopped early
            spark = text.sparkline([p.loss for p in points], width, min(losses), max(losses))
            yield Text.assemble((f"{name:<7}", "dim"), (spark, style), f" {points[-1].loss:.4f}")
