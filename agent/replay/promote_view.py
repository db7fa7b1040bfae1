"""The result of a promotion as tables and as JSON.

``promote_json`` is schema ``overnight.promote/1``: schema, what, metric, goal, budget (of the night), seeds, ablate,
self_reported, complete, held (trials of the edits that are a gain at every setting) and settings: one object per
setting with budget, values and findings (edit, trial, commit, subject, outcome, reason, night_gain, night_gain_se,
gain, gain_se, pairs). ``edit`` counts from 1; it is "whole branch" or "held together" for the last rows. Unknown
numbers are null.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from agent import text
from agent.replay.plan import Cost
from agent.replay.promotion import TOGETHER, WHOLE, Finding, Promotion, Result
from agent.replay.shown import Chart, Row, Shown, Table
from agent.review.report import svg

SCHEMA = "overnight.promote/1"
NAMES = {WHOLE: "whole branch", TOGETHER: "held together"}


def promote_json(result: Result) -> dict[str, Any]:
    plan = result.plan
    data = {
        "schema": SCHEMA,
        **{name: getattr(plan, name) for name in ("what", "metric", "goal", "budget", "ablate", "self_reported")},
        "seeds": plan.rounds,
        "complete": result.complete,
        "held": result.held,
        "settings": [
            {"budget": stage.setting.budget, "values": dict(stage.setting.values), "findings": list(map(_row, found))}
            for stage, found in zip(plan.stages, result.found, strict=True)
        ],
    }
    return text.clean_json(data)


def _row(finding: Finding) -> dict[str, Any]:
    edit = finding.comparison.edit
    return {
        "edit": NAMES.get(edit.number, edit.number), "trial": edit.trial, "commit": edit.commit,
        "subject": edit.subject, "outcome": finding.outcome, "reason": finding.reason, "night_gain": edit.gain,
        "night_gain_se": edit.gain_se, "gain": finding.gain, "gain_se": finding.se, "pairs": finding.pairs,
    }  # fmt: skip


def plan_words(plan: Promotion, cost: Cost) -> str:
    """What a promotion is about to run, in one line."""
    settings = "; ".join(str(stage.setting) for stage in plan.stages)
    time = "" if cost.seconds is None else f", at most {text.duration(cost.seconds)} of training"
    return text.line(f"{plan.what} at {settings}: at most {text.count(cost.runs, 'run')}{time}")


def promote_shown(result: Result) -> Shown:
    plan = result.plan
    columns = ("trial", "gain at night", "gain here", "pairs")
    return Shown(
        title=f"Promotion of {plan.what}",
        about=(f"night: {plan.budget}", f"up to {text.count(plan.rounds, 'seed')}", plan.metric),
        headline=headline(result),
        tables=tuple(
            Table(columns, tuple(map(_shown_row, found)), str(stage.setting), "edit")
            for stage, found in zip(plan.stages, result.found, strict=True)
        ),
        chart=Chart(
            "Gain of each edit", lambda width: _chart(result, width),
            (("parent", "at night"), ("", "at each setting; two standard errors")),
        ),
        self_reported=plan.self_reported,
    )  # fmt: skip


def _shown_row(finding: Finding) -> Row:
    edit = finding.comparison.edit
    gains = text.gain(edit.gain, edit.gain_se), text.gain(finding.gain, finding.se)
    return Row((str(edit.trial or ""), *gains, str(finding.pairs)), finding.outcome, edit.subject, finding.reason)


def headline(result: Result) -> str:
    """The whole promotion in a few sentences."""
    sentences = []
    for stage, found in zip(result.plan.stages, result.found, strict=True):
        edits = [f for f in found if f.comparison.edit.number > 0]
        count = Counter(f.outcome for f in edits)
        words = ", ".join(f"{number} {name}" for name, number in count.most_common())
        sentences.append(f"At {stage.setting}: of {text.count(len(edits), 'edit')} {words}")
        for f in found:
            if f.comparison.edit.number < 0:
                sentences[-1] += f"; {f.comparison.edit.subject}: {text.gain(f.gain, f.se)}, {f.outcome}"
    return ". ".join(sentences) + ("." if result.complete else ". Not complete yet.")


def _gains(result: Result) -> Iterator[tuple[str, list[tuple[float | None, float | None, str]]]]:
    """For each edit its gain, standard error and outcome: at night first, then at each setting."""
    for row, finding in enumerate(result.found[0]):
        edit = finding.comparison.edit
        gains: list[tuple[float | None, float | None, str]] = [(edit.gain, edit.gain_se, "at night")]
        gains += [(found[row].gain, found[row].se, found[row].outcome) for found in result.found]
        yield f"{edit.trial or ''} {edit.subject}".strip(), gains


def _chart(result: Result, width: int) -> str:
    """Gain of each edit at night and at each setting, with two standard errors."""
    rows = list(_gains(result))
    ends = [v + s * 2 * (se or 0.0) for _, gains in rows for v, se, _ in gains if v is not None for s in (-1, 1)]
    if not ends:
        return ""
    names = ["night", *(str(stage.setting) for stage in result.plan.stages)]
    line, top = 22, 26
    height = top + len(rows) * (len(names) * 13 + line) + 30
    root = svg.canvas(width, height, "gain of each edit at night and at each setting")
    box = svg.Box(14, top, width - 14, height - 30)
    low, high = min(0.0, *ends), max(0.0, *ends)
    pad = 0.05 * (high - low) or 0.1
    x = svg.linear(low - pad, high + pad, box.left, box.right)
    svg.axes(root, box, (x, svg.ticks(low - pad, high + pad, width // 140)), (lambda y: y, []))
    svg.add(root, "path", cls="loss parent", d=svg.line([(x(0), box.top), (x(0), box.bottom)]))
    y = top + 14.0
    for name, gains in rows:
        svg.add(root, "text", text.line(name, width // 8), cls="tick axis", x=box.left, y=y)
        for setting, (gain, se, outcome) in zip(names, gains, strict=True):
            y += 13
            if gain is None:
                continue
            style = "parent" if setting == "night" else "own"
            reach = 2 * (se or 0.0)
            svg.add(root, "path", cls=f"loss {style}", d=svg.line([(x(gain - reach), y), (x(gain + reach), y)]))
            kind = "keep" if outcome in ("holds", "at night") else "revert"
            mark = svg.add(root, "circle", cls=kind, cx=x(gain), cy=y, r=4)
            svg.tip(mark, f"{setting}: {text.gain(gain, se)}\n{outcome}")
        y += line
    return svg.render(root)
