"""The result of a replay on a terminal and as JSON.

``replay_json`` is schema ``overnight.replay/1``: schema, what, exact, rounds, budget, metric, goal, self_reported,
complete, reproduced, noise_sd (null), noise_dof, total (null, or an object like those in steps), steps (one object per
commit, the baseline first: step, commit, trial, subject, outcome, reason, recorded, value, runs, shift, recorded_gain,
recorded_gain_se, gain, gain_se), ablations (step, subject, need, reason, commit, value, loss, loss_se), minimal (null,
or branch, commit, left_out, gain, gain_se, made, reason) and differs (lines; of ``--exact``). Unknown numbers are null.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from agent import text
from agent.replay.outcomes import Finding, Result, minimal_branch
from agent.replay.plan import Cost, Plan

SCHEMA = "overnight.replay/1"
STYLES = {
    "reproduced": "green", "not reproduced": "red", "cannot tell": "yellow", "baseline": "dim",
    "holds": "green", "does not hold": "red", "cannot be left out": "dim",
}  # fmt: skip


def replay_json(result: Result) -> dict[str, Any]:
    plan = result.plan
    data = {
        "schema": SCHEMA,
        **{name: getattr(plan, name) for name in ("what", "exact", "rounds", "budget", "metric", "goal")},
        "self_reported": plan.self_reported,
        "complete": result.complete,
        "reproduced": result.reproduced,
        "noise_sd": result.noise.sd,
        "noise_dof": result.noise.dof,
        "total": _finding_json(result.total) if result.total else None,
        "steps": [_finding_json(finding) for finding in result.findings],
        "ablations": [
            {"step": f.step.number, "subject": f.step.subject, "need": f.outcome, "reason": f.reason,
             "commit": f.commit, "value": f.value, "loss": f.gain, "loss_se": f.se}
            for f in result.ablations
        ],
        "minimal": _minimal_json(result, result.minimal) if result.minimal else None,
        "differs": result.differs,
    }  # fmt: skip
    cleaned = text.clean_json(data)
    assert isinstance(cleaned, dict)
    return cleaned


def _finding_json(finding: Finding) -> dict[str, Any]:
    step = finding.step
    return {
        "step": step.number, "commit": step.commit, "trial": step.trial, "subject": step.subject,
        "outcome": finding.outcome, "reason": finding.reason, "recorded": step.recorded, "value": finding.value,
        "runs": finding.n, "shift": finding.shift, "recorded_gain": step.gain, "recorded_gain_se": step.gain_se,
        "gain": finding.gain, "gain_se": finding.se,
    }  # fmt: skip


def _minimal_json(result: Result, minimal: Finding) -> dict[str, Any]:
    left_out = [f.step.number for f in result.ablations if f.outcome == "does not hold"]
    return {
        "branch": minimal_branch(result.plan.what), "commit": minimal.step.commit, "left_out": left_out,
        "gain": minimal.gain, "gain_se": minimal.se, "made": minimal.outcome == "reproduced", "reason": minimal.reason,
    }  # fmt: skip


def plan_words(plan: Plan, cost: Cost) -> str:
    """What a replay is about to run, in one line."""
    runs = f"up to {text.count(cost.runs, 'run')} of {text.count(cost.commits, 'commit')}"
    more = f", and {text.count(plan.rounds, 'run')} of a branch without the edits that do not hold" if plan.cuts else ""
    time = "duration unknown" if cost.seconds is None else f"about {text.duration(cost.seconds)} by the recorded runs"
    return text.line(f"{plan.what}: {runs}{more}; budget {plan.budget}; {time}")


def replay_view(result: Result) -> RenderableType:
    star = result.plan.self_reported
    table = _table("step", "trial", "recorded", "replayed", "runs", "recorded gain", "replayed gain")
    for finding in result.findings:
        step = finding.step
        table.add_row(
            str(step.number),
            str(step.trial) if step.trial else text.MISSING,
            text.number(step.recorded, star),
            text.number(finding.value, star),
            str(finding.n),
            text.gain(step.gain, step.gain_se),
            text.gain(finding.gain, finding.se),
            Text(finding.outcome, style=STYLES[finding.outcome]),
            _commit(f"{step.commit[:9]} {step.subject}", finding.reason),
        )
    parts: list[RenderableType] = [table, Text(), Text(headline(result), style="bold")]
    parts += [Text(line, style="yellow") for line in map(text.line, result.differs)]
    if result.ablations:
        lost = _table("left out", "value without", "lost without")
        for found in result.ablations:
            value, loss = text.number(found.value, star), text.gain(found.gain, found.se)
            need = Text(found.outcome, style=STYLES[found.outcome])
            lost.add_row(str(found.step.number), value, loss, need, _commit(found.step.subject, found.reason))
        parts += [Text(), lost]
    parts += [Text(minimal_words(result))] if result.minimal else []
    parts += [Text(text.LEGEND, style="dim")] if star else []
    return Group(*parts)


def _table(*numbers: str) -> Table:
    """Columns of numbers, then the outcome, then the commit, which is shortened on a narrow terminal."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for name in numbers:
        table.add_column(name, justify="left" if "gain" in name else "right", no_wrap="gain" not in name)
    table.add_column("", no_wrap=True)
    table.add_column("commit")
    return table


def _commit(words: str, reason: str) -> Text:
    return Text.assemble(text.safe(words), ("  " + text.line(reason), "dim"), no_wrap=True, overflow="ellipsis")


def headline(result: Result) -> str:
    """The whole replay in one sentence."""
    edits = [finding for finding in result.findings if finding.step.number]
    count = Counter(finding.outcome for finding in edits)
    words = [f"{count['reproduced']} of {text.count(len(edits), 'edit')} reproduced"]
    words += [f"{count[name]} {name}" for name in ("not reproduced", "cannot tell") if count[name]]
    sentence = ", ".join(words)
    if (total := result.total) is not None:
        recorded = f" (recorded {text.gain(total.step.gain)})" if total.step.gain is not None else ""
        sentence += f". The whole branch: {text.gain(total.gain, total.se)}{recorded}, {total.outcome}"
    if result.plan.exact and edits:
        sentence += f". The baseline: {result.findings[0].outcome}"
    return sentence + ("." if result.complete else ". Not complete yet.")


def minimal_words(result: Result) -> str:
    """The branch without the edits that do not hold, in one sentence; "" if none was measured."""
    if (minimal := result.minimal) is None:
        return ""
    edits = text.count(sum(f.outcome == "does not hold" for f in result.ablations), "edit")
    gain = f"{text.gain(minimal.gain, minimal.se)} against the whole branch; {minimal.reason}"
    if minimal.outcome != "reproduced":
        return f"Without the {edits} that do not hold: {gain}. No branch was made."
    return f"{minimal_branch(result.plan.what)}: without {edits} that do not hold, {gain}."
