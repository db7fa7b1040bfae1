"""The result of a replay or promotion as tables and as JSON.

``replay_json`` is schema ``overnight.replay/1``. One object; unknown numbers are null:

- what, exact, rounds, budget, metric, goal, self_reported, complete, reproduced, noise_sd, noise_dof
- steps: one object per commit, the baseline first, with step, commit, trial, subject, outcome, reason, recorded, value,
  runs, shift, recorded_gain, recorded_gain_se, gain, gain_se
- total: the whole branch, with keys like those of a step (null)
- ablations: step, subject, need, reason, commit, value, loss, loss_se
- minimal: null, or branch, commit, left_out, gain, gain_se, made, reason
- differs: lines; with ``--exact`` only

``promote_json`` is schema ``overnight.promote/1``. One object; unknown numbers are null:

- what, metric, goal, budget (of the session), seeds, ablate, self_reported, complete
- held: trials of the edits that are a gain at every setting
- settings: one object per setting, with budget, values and findings
- findings: edit (from 1; "whole branch" or "held together" in the last rows), trial, commit, subject, outcome, reason,
  night_gain, night_gain_se (of the session), gain, gain_se, pairs
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from functools import partial
from typing import Any

from agent import text
from agent.replay.charts import gain_chart, value_chart
from agent.replay.outcomes import Finding, Result
from agent.replay.plan import Cost, Plan, Stage
from agent.replay.shown import Chart, Row, Shown, Table
from agent.replay.steps import TOGETHER, WHOLE

NAMES = {WHOLE: "whole branch", TOGETHER: "held together"}
COLUMNS = {  # question of a stage: columns of its table
    "steps": ("step", "trial", "recorded", "replayed", "recorded gain", "replayed gain", "runs"),
    "cuts": ("left out", "value without", "gain lost without"),
    "setting": ("trial", "gain in session", "gain here", "pairs"),
}


def result_json(result: Result) -> Any:
    """``replay_json`` or ``promote_json``, after the kind of the plan."""
    return text.clean_json(promote_json(result) if result.plan.kind == "promote" else replay_json(result))


def replay_json(result: Result) -> dict[str, Any]:
    plan, total, minimal = result.plan, result.total, result.minimal
    commits = {c.edit.number: c.before.commit for stage in plan.stages[1:] for c in stage.comparisons if not c.obstacle}
    return {
        "schema": "overnight.replay/1",
        **{name: getattr(plan, name) for name in ("what", "exact", "rounds", "budget", "metric", "goal")},
        "self_reported": plan.self_reported,
        "complete": result.complete,
        "reproduced": result.reproduced,
        "noise_sd": result.noise.sd,
        "noise_dof": result.noise.dof,
        "total": {**_step_json(total), "step": result.steps[-1].edit.number} if total else None,
        "steps": [_step_json(finding) for finding in result.steps],
        "ablations": [
            {"step": f.edit.number, "subject": f.edit.subject, "need": f.outcome, "reason": f.reason,
             "commit": commits.get(f.edit.number), "value": f.value, "loss": f.gain, "loss_se": f.se}
            for f in result.ablations
        ],
        "minimal": minimal and {
            "branch": plan.minimal_branch, "commit": minimal.edit.commit, "left_out": sorted(result.dropped),
            "gain": minimal.gain, "gain_se": minimal.se, "made": minimal.outcome == "reproduced",
            "reason": minimal.reason,
        },
        "differs": result.differs,
    }  # fmt: skip


def _step_json(finding: Finding) -> dict[str, Any]:
    edit, value = finding.edit, finding.value
    shift = None if value is None or edit.recorded is None else value - edit.recorded
    return {
        "step": edit.number, **_row_json(finding), "recorded": edit.recorded, "value": value, "runs": finding.n,
        "shift": shift, "recorded_gain": edit.gain, "recorded_gain_se": edit.gain_se,
    }  # fmt: skip


def _row_json(finding: Finding) -> dict[str, Any]:
    edit = finding.edit
    return {
        "trial": edit.trial, "commit": edit.commit, "subject": edit.subject, "outcome": finding.outcome,
        "reason": finding.reason, "gain": finding.gain, "gain_se": finding.se,
    }  # fmt: skip


def promote_json(result: Result) -> dict[str, Any]:
    plan = result.plan
    return {
        "schema": "overnight.promote/1",
        **{name: getattr(plan, name) for name in ("what", "metric", "goal", "budget", "ablate", "self_reported")},
        "seeds": plan.rounds,
        "complete": result.complete,
        "held": result.held,
        "settings": [
            {"budget": stage.setting.budget, "values": dict(stage.setting.values), "findings": [
                {"edit": NAMES.get(f.edit.number, f.edit.number), **_row_json(f), "night_gain": f.edit.gain,
                 "night_gain_se": f.edit.gain_se, "pairs": f.n}
                for f in found
            ]}
            for stage, found in zip(plan.stages, result.found, strict=True)
        ],
    }  # fmt: skip


def plan_words(plan: Plan, cost: Cost) -> str:
    """What is about to run, in one line."""
    if plan.kind == "promote":
        settings = "; ".join(str(stage.setting) for stage in plan.stages)
        time = "" if math.isnan(cost.seconds) else f", at most {text.duration(cost.seconds)} of training"
        return text.line(f"{plan.what} at {settings}: at most {text.count(cost.runs, 'run')}{time}")
    runs = f"up to {text.count(cost.runs, 'run')} of {text.count(cost.commits, 'commit')}"
    rest = f", and {text.count(plan.rounds, 'run')} of a branch without the edits that do not hold"
    known = f"about {text.duration(cost.seconds)} by the recorded runs"
    time = "duration unknown" if math.isnan(cost.seconds) else known
    return text.line(f"{plan.what}: {runs}{rest if plan.stages[1:] else ''}; budget {plan.budget}; {time}")


def shown_of(result: Result) -> Shown:
    """The tables and the chart of a result."""
    plan, noise = result.plan, result.noise
    if plan.kind == "promote":
        title, budget, rounds = "Promotion", f"night: {plan.budget}", f"up to {text.count(plan.rounds, 'seed')}"
        key = (("parent", "in the session"), ("", "at each setting; two standard errors"))
        chart = Chart("Gain of each edit", partial(gain_chart, result), key)
    else:
        title, budget, rounds = "Replay", plan.budget, f"{text.count(plan.rounds, 'run')} of each commit"
        sd = "" if noise.sd is None else f" (sd {text.number(noise.sd)} between runs, {noise.dof} degrees of freedom)"
        key = (("parent", "recorded"), ("", f"replayed, with two standard errors{sd}"))
        chart = Chart("Recorded and replayed", partial(value_chart, result), key)
    minimal = [minimal_words(result, result.minimal)] if result.minimal else []
    return Shown(
        title=f"{title} of {plan.what}",
        about=("exactly as recorded" if plan.exact else rounds, budget, plan.metric),
        headline=". ".join([*_sentences(result), "" if result.complete else "Not complete yet."]).rstrip(),
        tables=tuple(_tables(result)),
        chart=chart,
        notes=(*result.differs, *minimal),
        legend=text.LEGEND if plan.self_reported else "",
    )


def _tables(result: Result) -> Iterator[Table]:
    star = result.plan.self_reported
    for stage, found in zip(result.plan.stages, result.found, strict=True):
        title, what = "", "commit"
        match stage.question:
            case "setting":
                title, what = str(stage.setting), "edit"
            case "cuts":
                title, found = "Each edit left out; positive: the branch loses without it", result.ablations
            case "steps":
                found = result.steps
        if found:
            yield Table(COLUMNS[stage.question], tuple(_row(f, stage, star) for f in found), title, what)


def _row(finding: Finding, stage: Stage, star: bool) -> Row:
    edit, what = finding.edit, finding.edit.subject
    recorded, gain = text.gain(edit.gain, edit.gain_se), text.gain(finding.gain, finding.se)
    value, runs = text.number(finding.value, star), str(finding.n)
    match stage.question:
        case "setting":
            cells: tuple[str, ...] = (str(edit.trial or ""), recorded, gain, runs)
        case "cuts":
            cells = (str(edit.number), value, gain)
        case "steps":
            trial, what = str(edit.trial or text.MISSING), f"{edit.commit[:9]} {what}"
            cells = (str(edit.number), trial, text.number(edit.recorded, star), value, recorded, gain, runs)
    return Row(cells, finding.outcome, what, finding.reason)


def _sentences(result: Result) -> Iterator[str]:
    """The whole result in a few sentences, without their full stops."""
    if result.plan.kind == "promote":
        for stage, found in zip(result.plan.stages, result.found, strict=True):
            edits = [f for f in found if f.edit.number > 0]
            words = ", ".join(f"{name} {k}" for name, k in Counter(f.outcome for f in edits).most_common())
            more = [f"; {f.edit.subject}: {text.gain(f.gain, f.se)}, {f.outcome}" for f in found if f.edit.number < 0]
            yield f"At {stage.setting}, of {text.count(len(edits), 'edit')}: {words}{''.join(more)}"
        return
    edits = list(result.steps[1:])
    count = Counter(finding.outcome for finding in edits)
    others = [f", {count[name]} {name}" for name in ("not reproduced", "cannot tell") if count[name]]
    yield f"{count['reproduced']} of {text.count(len(edits), 'edit')} reproduced{''.join(others)}"
    if (total := result.total) is not None:
        recorded = f" (recorded {text.gain(total.edit.gain)})" if total.edit.gain is not None else ""
        yield f"The whole branch: {text.gain(total.gain, total.se)}{recorded}, {total.outcome}"
    if result.plan.exact and edits:
        yield f"The baseline: {result.steps[0].outcome}"


def minimal_words(result: Result, minimal: Finding) -> str:
    """The branch without the edits that do not hold, in one sentence."""
    edits = text.count(len(result.dropped), "edit")
    gain = f"{text.gain(minimal.gain, minimal.se)} against the whole branch; {minimal.reason}"
    if minimal.outcome != "reproduced":
        return f"Without the {edits} that do not hold: {gain}. No branch was made."
    return f"{result.plan.minimal_branch}: without {edits} that do not hold, {gain}."
