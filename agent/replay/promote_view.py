"""The result of a promotion on a terminal, as JSON and as a page.

``promote_json`` is schema ``overnight.promote/1``: schema, what, metric, goal, budget (of the night), seeds, ablate,
self_reported, complete, held (trials of the edits that are a gain at every setting) and settings: one object per
setting with budget, values and findings (edit, trial, commit, subject, outcome, reason, night_gain, night_gain_se,
gain, gain_se, pairs). ``edit`` counts from 1; it is "whole branch" or "held together" for the last rows. Unknown
numbers are null.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from agent import text
from agent.replay.promote import TOGETHER, WHOLE, Prepared, Result
from agent.replay.promotion import Finding
from agent.review.report import svg
from agent.review.report.html import render_page, write_page

SCHEMA = "overnight.promote/1"
STYLES = {
    "holds": "green", "shrinks": "yellow", "reverses": "red", "fails": "red", "no effect": "dim",
    "cannot tell": "yellow",
}  # fmt: skip
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
    cleaned = text.clean_json(data)
    assert isinstance(cleaned, dict)
    return cleaned


def _row(finding: Finding) -> dict[str, Any]:
    edit = finding.comparison.edit
    return {
        "edit": NAMES.get(edit.number, edit.number), "trial": edit.trial, "commit": edit.commit,
        "subject": edit.subject, "outcome": finding.outcome, "reason": finding.reason, "night_gain": edit.gain,
        "night_gain_se": edit.gain_se, "gain": finding.gain, "gain_se": finding.se, "pairs": finding.pairs,
    }  # fmt: skip


def plan_words(prepared: Prepared) -> str:
    """What a promotion is about to run, in one line."""
    plan = prepared.plan
    settings = "; ".join(str(stage.setting) for stage in plan.stages)
    time = "" if prepared.seconds is None else f", at most {text.duration(prepared.seconds)} of training"
    return text.line(f"{plan.what} at {settings}: at most {text.count(prepared.most, 'run')}{time}")


def promote_view(result: Result) -> RenderableType:
    parts: list[RenderableType] = []
    for stage, found in zip(result.plan.stages, result.found, strict=True):
        table = Table(
            title=str(stage.setting), title_justify="left", title_style="bold", box=None, pad_edge=False,
            padding=(0, 2, 0, 0), header_style="bold",
        )  # fmt: skip
        for name in ("trial", "gain at night", "gain here", "pairs", ""):
            table.add_column(name, no_wrap=True)
        table.add_column("edit")
        for f in found:
            edit = f.comparison.edit
            table.add_row(
                str(edit.trial or ""),
                text.gain(edit.gain, edit.gain_se),
                text.gain(f.gain, f.se),
                str(f.pairs),
                Text(f.outcome, style=STYLES[f.outcome]),
                Text.assemble(
                    text.safe(edit.subject), ("  " + text.line(f.reason), "dim"), no_wrap=True, overflow="ellipsis"
                ),
            )
        parts += [table, Text()]
    return Group(*parts, Text(headline(result), style="bold"))


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


def write_promotion(result: Result, place: Path) -> None:
    """Raises EnvironmentProblem if ``place`` cannot be written."""
    plan = result.plan
    page = render_page(
        "promote.html",
        plan=plan,
        about=[f"night: {plan.budget}", f"up to {text.count(plan.rounds, 'seed')}", plan.metric],
        headline=headline(result),
        stages=list(zip(plan.stages, result.found, strict=True)),
        chart=_chart(result),
        narrow=_chart(result, 420),
        legend=text.LEGEND if plan.self_reported else "",
    )
    write_page(place, page)


def _gains(result: Result) -> Iterator[tuple[str, list[tuple[float | None, float | None, str]]]]:
    """For each edit its gain, standard error and outcome: at night first, then at each setting."""
    for row, finding in enumerate(result.found[0]):
        edit = finding.comparison.edit
        gains: list[tuple[float | None, float | None, str]] = [(edit.gain, edit.gain_se, "at night")]
        gains += [(found[row].gain, found[row].se, found[row].outcome) for found in result.found]
        yield f"{edit.trial or ''} {edit.subject}".strip(), gains


def _chart(result: Result, width: int = 960) -> str:
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
