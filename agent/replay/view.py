"""A replay: recorded against replayed, as a table, as a page, and for programs.

``replay_json`` is schema ``overnight.replay/1``: schema, what, exact, rounds, budget, metric, goal, self_reported,
complete, reproduced, noise_sd (null), noise_dof, total (null, or an object like those in steps), steps (one object per
commit, the baseline first: step, commit, trial, subject, outcome, reason, recorded, value, runs, shift, recorded_gain,
recorded_gain_se, gain, gain_se), ablations (step, subject, need, reason, commit, value, loss, loss_se), minimal (null,
or branch, commit, left_out, gain, gain_se, made, reason) and differs (lines; of ``--exact``). Unknown numbers are null.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from agent import text
from agent.replay.outcomes import Finding
from agent.replay.runner import Result
from agent.replay.steps import Step
from agent.review.report import svg
from agent.review.report.html import render_page, write_page
from agent.types import Measurement

SCHEMA = "overnight.replay/1"
STYLES = {
    "reproduced": "green", "not reproduced": "red", "cannot tell": "yellow", "baseline": "dim",
    "holds": "green", "does not hold": "red", "cannot be left out": "dim",
}  # fmt: skip


def replay_json(result: Result, differs: Sequence[str] = ()) -> dict[str, Any]:
    plan, minimal = result.plan, result.minimal
    data = {
        "schema": SCHEMA,
        "what": plan.what,
        "exact": plan.exact,
        "rounds": plan.rounds,
        "budget": plan.budget,
        "metric": plan.metric,
        "goal": plan.goal,
        "self_reported": plan.self_reported,
        "complete": result.complete,
        "reproduced": result.reproduced,
        "noise_sd": result.noise.sd,
        "noise_dof": result.noise.dof,
        "total": _finding_json(result.total) if result.total else None,
        "steps": [_finding_json(finding) for finding in result.findings],
        "ablations": [
            {"step": a.step.number, "subject": a.step.subject, "need": a.need, "reason": a.reason, "commit": a.commit,
             "value": a.value, "loss": a.loss, "loss_se": a.se}
            for a in result.ablations
        ],
        "minimal": None if minimal is None else {
            "branch": minimal.branch, "commit": minimal.commit, "left_out": [s.number for s in minimal.left_out],
            "gain": minimal.gain, "gain_se": minimal.se, "made": not minimal.worse, "reason": minimal.reason,
        },
        "differs": list(differs),
    }  # fmt: skip
    cleaned = text.clean_json(data)
    assert isinstance(cleaned, dict)
    return cleaned


def _finding_json(finding: Finding) -> dict[str, Any]:
    step = finding.step
    return {
        "step": step.number,
        "commit": step.commit,
        "trial": step.trial,
        "subject": step.subject,
        "outcome": finding.outcome,
        "reason": finding.reason,
        "recorded": step.recorded,
        "value": finding.value,
        "runs": finding.n,
        "shift": finding.shift,
        "recorded_gain": step.gain,
        "recorded_gain_se": step.gain_se,
        "gain": finding.gain,
        "gain_se": finding.se,
    }


def replay_view(result: Result, differs: Sequence[str] = ()) -> RenderableType:
    plan = result.plan
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for name in ("step", "trial", "recorded", "replayed", "runs", "recorded gain", "replayed gain"):
        table.add_column(name, justify="left" if "gain" in name else "right", no_wrap="gain" not in name)
    table.add_column("", no_wrap=True)
    table.add_column("commit")  # the one that gives way
    for finding in result.findings:
        step = finding.step
        table.add_row(
            str(step.number),
            str(step.trial) if step.trial else text.MISSING,
            text.number(step.recorded, plan.self_reported),
            text.number(finding.value, plan.self_reported),
            str(finding.n),
            text.gain(step.gain, step.gain_se),
            text.gain(finding.gain, finding.se),
            Text(finding.outcome, style=STYLES[finding.outcome]),
            _one_line(text.safe(f"{step.commit[:9]} {step.subject}"), finding.reason),
        )
    parts: list[RenderableType] = [table, Text(), Text(headline(result), style="bold")]
    parts += [Text(line, style="yellow") for line in map(text.line, differs)]
    if result.ablations:
        parts += [Text(), _ablations(result)]
    if result.minimal is not None:
        parts.append(Text(minimal_words(result)))
    if plan.self_reported:
        parts.append(Text(text.LEGEND, style="dim"))
    return Group(*parts)


def headline(result: Result) -> str:
    """The whole replay in one sentence."""
    edits = [finding for finding in result.findings if finding.step.number]
    count = {name: sum(1 for f in edits if f.outcome == name) for name in STYLES}
    words = f"{count['reproduced']} of {text.count(len(edits), 'edit')} reproduced"
    others = [f"{count[name]} {name}" for name in ("not reproduced", "cannot tell") if count[name]]
    sentence = ", ".join([words, *others])
    if result.total is not None:
        total = result.total
        recorded = f" (recorded {text.gain(total.step.gain)})" if total.step.gain is not None else ""
        sentence += f". The whole branch: {text.gain(total.gain, total.se)}{recorded}, {total.outcome}"
    baseline = result.findings[0] if result.findings else None
    if result.plan.exact and baseline is not None and edits:
        sentence += f". The baseline: {baseline.outcome}"
    return sentence + ("." if result.complete else ". Not complete yet.")


def minimal_words(result: Result) -> str:
    minimal = result.minimal
    if minimal is None:
        return ""
    left = text.count(len(minimal.left_out), "edit")
    gain = text.gain(minimal.gain, minimal.se)
    if minimal.worse:
        return f"Without the {left} that do not hold: {gain}; {minimal.reason}. No branch was made."
    return f"{minimal.branch}: without {left} that do not hold, {gain} against the whole branch; {minimal.reason}."


def _ablations(result: Result) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for name in ("left out", "value without", "lost without"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    table.add_column("commit")  # the one that gives way
    for found in result.ablations:
        table.add_row(
            str(found.step.number),
            text.number(found.value, result.plan.self_reported),
            text.gain(found.loss, found.se),
            Text(found.need, style=STYLES[found.need]),
            _one_line(text.safe(found.step.subject), found.reason),
        )
    return table


def _one_line(words: Text, reason: str) -> Text:
    return Text.assemble(words, ("  " + text.line(reason), "dim"), no_wrap=True, overflow="ellipsis")


def write_replay(result: Result, place: Path, differs: Sequence[str] = ()) -> None:
    """The page of a replay: one file, no network."""
    plan = result.plan
    rounds = "exactly as recorded" if plan.exact else f"{text.count(plan.rounds, 'run')} of each commit"
    page = render_page(
        "replay.html",
        plan=plan,
        about=[rounds, plan.budget, plan.metric],
        headline=headline(result),
        findings=result.findings,
        ablations=result.ablations,
        minimal=minimal_words(result),
        differs=differs,
        chart=replay_chart(result),
        narrow=replay_chart(result, 420, 330),
        legend=text.LEGEND if plan.self_reported else "",
        noise=result.noise,
    )
    write_page(place, page)


def replay_chart(result: Result, width: int = 960, height: int = 360) -> str:
    """Recorded and replayed value of each step, the latter with two standard errors."""
    plan = result.plan
    values = [v for f in result.findings for v in (f.step.recorded, f.value) if v is not None]
    if not values:
        return ""
    sd = result.noise.sd or 0.0
    low, high = min(values) - 2 * sd, max(values) + 2 * sd
    pad = 0.06 * (high - low) or abs(high) * 0.01 or 0.5
    root = svg.canvas(width, height, f"{text.line(plan.metric)} by step, recorded and replayed")
    box = svg.Box(58, 26, width - 14, height - 30)
    last = max(len(result.findings) - 1, 1)
    x = svg.linear(-0.4, last + 0.4, box.left, box.right)
    y = svg.linear(low - pad, high + pad, box.bottom, box.top)
    numbers = [v for v in svg.ticks(0, last, width // 90) if v == int(v)]
    svg.axes(root, box, (x, numbers), (y, svg.ticks(low - pad, high + pad, 6)))
    svg.add(root, "text", text.line(plan.metric), cls="tick axis", x=box.left, y=14)
    svg.add(root, "text", "step", cls="tick axis", x=box.right, y=14, text_anchor="end")
    for name, shown in (
        ("parent", [(f, f.step.recorded) for f in result.findings]),
        ("own", [(f, f.value) for f in result.findings]),
    ):
        points = [(x(f.step.number), y(v)) for f, v in shown if v is not None]
        svg.add(root, "path", cls=f"loss {name}", d=svg.line(points))
    for f in result.findings:
        if f.value is not None:
            reach = 2 * sd / f.n**0.5 if f.n else 0.0
            at = x(f.step.number)
            svg.add(root, "path", cls="loss own", d=f"M{at:.1f} {y(f.value - reach):.1f}V{y(f.value + reach):.1f}")
            mark = svg.add(root, "circle", cls="keep", cx=at, cy=y(f.value), r=4.5)
            replayed = f"{text.number(f.value)} in {text.count(f.n, 'run')}"
            words = f"recorded {text.number(f.step.recorded)}, replayed {replayed}"
            svg.tip(mark, f"step {f.step.number}: {f.outcome}\n{words}\n{text.line(f.step.subject, 90)}")
    return svg.render(root)


class ReplayView:
    """What a replay shows while it works, on ``console``: a bar on a terminal, one line per run anywhere else."""

    def __init__(self, console: Console, metric: str, total: int):
        self.console, self.metric, self.total = console, metric, total
        self.done = 0
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self.bar = Progress(*columns, console=console, transient=True)
        self.task = self.bar.add_task("", total=total)
        self.what = ""

    def __enter__(self) -> ReplayView:
        if self.console.is_terminal:
            self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def begins(self, step: Step, run: int, runs: int) -> None:
        self.what = _which(step, run, runs)
        self.bar.update(self.task, description=self.what)

    def progress(self, phase: str, info: Mapping[str, Any]) -> None:
        loss = info.get("loss")
        words = f"{self.what}: {phase}" + (f", loss {loss:.3f}" if isinstance(loss, float) else "")
        self.bar.update(self.task, description=words)

    def measured(self, step: Step, run: int, runs: int, found: Measurement) -> None:
        self.done += 1
        self.bar.update(self.task, completed=self.done, total=max(self.total, self.done))
        value = text.number(found.value, found.self_reported)
        words = f"{self.metric} {value}" if found.value is not None else found.status
        followed = next((run.value for run in step.runs if run.seed == found.seed), step.recorded)  # of --exact
        recorded = f" (recorded {text.number(followed)})" if followed is not None else ""
        spent = text.duration(sum(found.seconds.values()))
        line = f"{_which(step, run, runs)}  {words}{recorded}  {spent}  {step.subject}"
        self.console.print(Text(text.line(line, 160)), soft_wrap=True)


def _which(step: Step, run: int, runs: int) -> str:
    return f"step {step.number}, run {run} of {runs}"
