"""The result of a replay as tables and as JSON.

``replay_json`` is schema ``overnight.replay/1``: schema, what, exact, rounds, budget, metric, goal, self_reported,
complete, reproduced, noise_sd (null), noise_dof, total (null, or an object like those in steps), steps (one object per
commit, the baseline first: step, commit, trial, subject, outcome, reason, recorded, value, runs, shift, recorded_gain,
recorded_gain_se, gain, gain_se), ablations (step, subject, need, reason, commit, value, loss, loss_se), minimal (null,
or branch, commit, left_out, gain, gain_se, made, reason) and differs (lines; of ``--exact``). Unknown numbers are null.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from agent import text
from agent.replay.outcomes import Finding, Result, minimal_branch
from agent.replay.plan import Cost, Plan
from agent.replay.shown import Chart, Row, Shown, Table
from agent.review.report import svg

SCHEMA = "overnight.replay/1"


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
    return text.clean_json(data)


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


def replay_shown(result: Result) -> Shown:
    plan, star, noise = result.plan, result.plan.self_reported, result.noise
    rounds = "exactly as recorded" if plan.exact else f"{text.count(plan.rounds, 'run')} of each commit"
    columns = ("step", "trial", "recorded", "replayed", "recorded gain", "replayed gain", "runs")
    tables = [Table(columns, tuple(_row(finding, star) for finding in result.findings))]
    if result.ablations:
        lost = tuple(
            Row((str(f.step.number), text.number(f.value, star), text.gain(f.gain, f.se)), f.outcome, f.step.subject,
                f.reason)
            for f in result.ablations
        )  # fmt: skip
        title = "Each edit left out; positive: the branch loses without it"
        tables.append(Table(("left out", "value without", "gain lost without"), lost, title))
    spread = "" if noise.sd is None else f" (sd {text.number(noise.sd)} between runs, {noise.dof} degrees of freedom)"
    key = (("parent", "recorded"), ("", f"replayed, with two standard errors{spread}"))
    return Shown(
        title=f"Replay of {plan.what}",
        about=(rounds, plan.budget, plan.metric),
        headline=headline(result),
        tables=tuple(tables),
        chart=Chart("Recorded and replayed", lambda width: replay_chart(result, width), key),
        notes=(*result.differs, *([minimal_words(result)] if result.minimal else [])),
        self_reported=star,
    )


def _row(finding: Finding, star: bool) -> Row:
    step = finding.step
    cells = (
        str(step.number), str(step.trial) if step.trial else text.MISSING, text.number(step.recorded, star),
        text.number(finding.value, star), text.gain(step.gain, step.gain_se), text.gain(finding.gain, finding.se),
        str(finding.n),
    )  # fmt: skip
    return Row(cells, finding.outcome, f"{step.commit[:9]} {step.subject}", finding.reason)


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


def replay_chart(result: Result, width: int) -> str:
    """Recorded and replayed value of each step; the bars are two standard errors of the replayed mean."""
    findings, metric, sd = result.findings, text.line(result.plan.metric), result.noise.sd or 0.0
    values = [v for f in findings for v in (f.step.recorded, f.value) if v is not None]
    if not values:
        return ""
    low, high = min(values) - 2 * sd, max(values) + 2 * sd
    pad = 0.06 * (high - low) or abs(high) * 0.01 or 0.5
    height = 360 if width > 500 else 330
    root = svg.canvas(width, height, f"{metric} by step, recorded and replayed")
    box = svg.Box(58, 26, width - 14, height - 30)
    last = max(len(findings) - 1, 1)
    x = svg.linear(-0.4, last + 0.4, box.left, box.right)
    y = svg.linear(low - pad, high + pad, box.bottom, box.top)
    numbers = [v for v in svg.ticks(0, last, width // 90) if v == int(v)]
    svg.axes(root, box, (x, numbers), (y, svg.ticks(low - pad, high + pad, 6)))
    svg.add(root, "text", metric, cls="tick axis", x=box.left, y=14)
    svg.add(root, "text", "step", cls="tick axis", x=box.right, y=14, text_anchor="end")
    recorded = [(x(f.step.number), y(f.step.recorded)) for f in findings if f.step.recorded is not None]
    svg.add(root, "path", cls="loss parent", d=svg.line(recorded))
    measured = [(f, f.value) for f in findings if f.value is not None]
    svg.add(root, "path", cls="loss own", d=svg.line([(x(f.step.number), y(value)) for f, value in measured]))
    for f, value in measured:
        at, reach = x(f.step.number), 2 * sd / f.n**0.5
        svg.add(root, "path", cls="loss own", d=f"M{at:.1f} {y(value - reach):.1f}V{y(value + reach):.1f}")
        mark = svg.add(root, "circle", cls="keep", cx=at, cy=y(value), r=4.5)
        words = f"recorded {text.number(f.step.recorded)}, replayed {text.number(value)} in {text.count(f.n, 'run')}"
        svg.tip(mark, f"step {f.step.number}: {f.outcome}\n{words}\n{text.line(f.step.subject, 90)}")
    return svg.render(root)
