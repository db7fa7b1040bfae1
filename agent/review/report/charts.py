"""Charts of the report: progress by trial, gain by kept edit, loss curves, shares of time, sources by trial."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

from agent import text
from agent.curves import Point, thin
from agent.review.data.attempts import Attempt
from agent.review.data.branch import Step, padded, reached_at
from agent.review.data.night import Night
from agent.review.report import svg

CUT = 0.25  # share of the budget at which loss curves begin
MOST_MARKS = 1000  # attempts with a mark and a tip of their own, and rows of the report's table
LANE = 22  # height of the strip for attempts without a value


def apart(attempts: Sequence[Attempt]) -> tuple[list[Attempt], list[Attempt]]:
    """Split attempts into those drawn as plain dots, and those with a mark: the latest and all kept ones."""
    kept: list[Attempt] = []
    early: list[Attempt] = []
    for attempt in attempts[:-MOST_MARKS]:
        (kept if attempt.decision == "keep" else early).append(attempt)
    return early, [*kept, *attempts[-MOST_MARKS:]]


def progress_chart(night: Night, width: int = 960, height: int = 400) -> str:
    """Draw every attempt, the value of the branch as a staircase, and the noise around it."""
    summary, span = night.summary, night.value_range
    metric, star = text.line(summary.metric), text.STAR if summary.self_reported else ""
    last = max(len(night.state.records), 1)
    plot = svg.plot(
        (width, height), f"{metric} by trial: {summary.kept} of {summary.trials} kept", "chart progress",
        (-0.6, last + 0.6), span, numbers=svg.whole_ticks(last, width // 90), lane=LANE,
        titles=(f"{metric}{star}, {text.better(summary.goal)}", "trial"),
    )  # fmt: skip
    root = plot.root
    svg.zoomable(root, plot.box, (-0.6, last + 0.6), span)
    early, marked = apart(night.attempts)
    stretched = replace(plot, root=svg.add(root, "g", cls="stretched"))
    cloud = [(a.trial, a.value) for a in early if a.value is not None and span[0] <= a.value <= span[1]]
    svg.cloud(stretched.root, [(plot.x(trial), plot.y(value)) for trial, value in cloud])
    _branch(stretched, night.steps, summary.noise_sd, last)
    for run in (run for run in night.state.baseline_runs if run.counts):
        words = f"baseline, {run.role} run\n{metric} {text.number(run.value, run.self_reported)}"
        svg.tip(plot.dot((0, run.value or 0.0), "calibration", 3), words)
    if any(attempt.value is None for attempt in marked):
        lane = plot.box.bottom + LANE - 5
        svg.add(root, "text", "none", cls="tick axis", x=plot.box.left - 6, y=lane, text_anchor="end")
    reached = {step.trial: step.value for step in night.steps}
    for attempt in sorted(marked, key=lambda a: a.decision == "keep"):  # kept ones on top
        _attempt(plot, attempt, reached.get(attempt.trial, attempt.value), metric, span)
    return svg.render(root)


def _branch(plot: svg.Plot, steps: Sequence[Step], sd: float | None, last: int) -> None:
    corners: list[tuple[float, float]] = []
    ends = [*reached_at(steps), last + 0.6]
    for step, (start, end) in zip(steps, pairwise(ends), strict=True):
        corners += [(start, step.value), (end, step.value)]
    if sd:
        upper, lower = ([(t, v + reach) for t, v in corners] for reach in (2 * sd, -2 * sd))
        plot.line([*upper, *reversed(lower)], "band", "Z")
    plot.line(corners, "staircase")


def _attempt(plot: svg.Plot, attempt: Attempt, value: float | None, metric: str, span: tuple[float, float]) -> None:
    at, subject = plot.x(attempt.trial), text.line(attempt.subject, 90)
    head = f"trial {attempt.trial} · {attempt.outcome}"
    link = svg.add(plot.root, "a", href=f"#trial-{attempt.trial}")
    if attempt.value is None or value is None:
        d = f"M{at - 3:.1f} {plot.box.bottom + LANE - 9:.1f}h6"  # stopped, since it was certain to lose
        if attempt.record.failed:
            d = f"M{at - 3:.1f} {plot.box.bottom + LANE - 12:.1f}l6 6m0 -6l-6 6"
        mark = svg.add(link, "path", cls="fail" if attempt.record.failed else "stopped", d=d)
        svg.tip(mark, f"{head}\n{subject}")
        return
    words = f"{metric} {text.number(attempt.value, attempt.self_reported)}   {text.gain(attempt.gain, attempt.gain_se)}"
    if span[0] <= value <= span[1]:
        cls, r = ("keep", 5.0) if attempt.decision == "keep" else ("revert", 3.2)
        mark = replace(plot, root=link).dot((attempt.trial, value), cls, r)
    else:
        tilt = -5 if value > span[1] else 5
        mark = svg.add(link, "path", cls="revert", d=f"M{at - 4:.1f} {plot.y(value):.1f}h8l-4 {tilt}Z")
        words += " (outside the range of this chart)"
    svg.tip(mark, f"{head}\n{words}\n{subject}")


def gain_chart(night: Night, width: int = 960, height: int = 300) -> str:
    """Draw the gain by kept edit as a waterfall, and that on the test split as diamonds; "" if nothing was kept."""
    edits = night.steps[1:]
    if not edits:
        return ""
    shown = [step.gain for step in night.steps] + [step.test_gain for step in edits if step.test_gain is not None]
    plot = svg.plot(
        (width, height), f"gain in {text.line(night.summary.metric)} by kept edit", "chart gains",
        (0, len(edits)), padded(min(shown), max(shown)), levels=5, titles=("gain since the baseline", "trial"),
    )  # fmt: skip
    root = plot.root
    x, y, slot = plot.x, plot.y, plot.x(1) - plot.x(0)
    thickness = min(44.0, slot * 0.62)
    every = max(1, math.ceil(26 / slot))
    for k, (below, step) in enumerate(pairwise(night.steps)):
        middle, top, base = x(k + 0.5), y(max(step.gain, below.gain)), y(min(step.gain, below.gain))
        bar = svg.add(root, "rect", cls="bar" if step.gain >= below.gain else "bar worse", x=middle - thickness / 2,
                      y=top, width=thickness, height=max(1.5, base - top))  # fmt: skip
        change, subject = text.gain(step.gain - below.gain), text.line(step.subject, 90)
        svg.tip(bar, f"trial {step.trial}: {change}\nsum {text.gain(step.gain)}\n{subject}")
        if step is not edits[-1]:
            left = middle + thickness / 2
            svg.add(root, "line", cls="joint", x1=left, x2=left + slot - thickness, y1=y(step.gain), y2=y(step.gain))
        if k % every == 0:
            svg.add(root, "text", str(step.trial), cls="tick", x=middle, y=plot.box.bottom + 16, text_anchor="middle")
        if step.test_gain is not None:
            diamond = f"M{middle:.1f} {y(step.test_gain) - 5:.1f}l5 5l-5 5l-5 -5Z"
            mark = svg.add(root, "path", cls="test", d=diamond)
            svg.tip(mark, f"trial {step.trial}, test split\n{text.gain(step.test_gain)} since the baseline")
    return svg.render(root)


def curve_chart(curve: Sequence[Point], parent: Sequence[Point], width: int = 330, height: int = 150) -> str:
    """Draw the training loss over the budget, beside the parent's, without the steep start."""
    early = any(points and points[-1].progress < CUT for points in (curve, parent))
    own, other = ([p for p in points if early or p.progress >= CUT] for points in (curve, parent))
    losses = [p.loss for p in (*own, *other)]
    if not losses:
        return ""
    begin = min(100 * CUT, *(100 * p.progress for p in (*own, *other)))
    plot = svg.plot(
        (width, height), "training loss over the budget, beside the parent's", "chart curve",
        (begin, 100), padded(min(losses), max(losses)), numbers=[v for v in (0, 25, 50, 75, 100) if v >= begin],
        levels=4, titles=("training loss over % of the budget", ""), margins=(44, 23, 8, 20),
    )  # fmt: skip
    for points, name in ((other, "parent"), (own, "own")):
        plot.line([(100 * p.progress, p.loss) for p in thin(list(points), 60)], f"loss {name}")
    return svg.render(plot.root)


def share_bar(parts: Mapping[str, float], words: Mapping[str, str], width: int = 960, height: int = 30) -> str:
    """Draw one bar divided into ``parts``; ``words`` are the sizes as text."""
    total = sum(parts.values())
    if total <= 0:
        return ""
    root = svg.canvas(width, height, ", ".join(f"{name}: {words[name]}" for name in parts), "chart share")
    root.set("preserveAspectRatio", "none")
    left = 0.0
    for k, (name, size) in enumerate(parts.items()):
        extent = width * size / total
        part = svg.add(root, "rect", cls=f"part p{k % 7}", x=left, y=0, width=max(0.0, extent - 2), height=height)
        svg.tip(part, f"{name}: {words[name]}")
        left += extent
    return svg.render(root)


def source_strip(night: Night, width: int = 960, height: int = 44) -> tuple[str, list[str]]:
    """Draw the source of each trial in order, kept ones taller; return the picture and the sources by colour.

    Empty if there is one source only.
    """
    sources = list(dict.fromkeys(attempt.source or "unknown" for attempt in night.attempts))
    if len(sources) < 2:
        return "", []
    root = svg.canvas(width, height, "source of each trial", "chart strip")
    root.set("preserveAspectRatio", "none")
    slot = width / len(night.attempts)
    for k, attempt in enumerate(night.attempts):
        kept, name = attempt.decision == "keep", attempt.source or "unknown"
        thickness = max(slot - (1 if slot > 4 else 0), 0.5)
        top, tall = (0.0, height) if kept else (height / 4, height / 2)
        cls = f"part p{sources.index(name) % 6}"
        part = svg.add(root, "rect", cls=cls, x=k * slot, y=top, width=thickness, height=tall)
        svg.tip(part, f"trial {attempt.trial}, {text.line(name, 30)}: {attempt.outcome}")
    return svg.render(root), [text.line(name, 30) for name in sources]
