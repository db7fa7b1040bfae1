"""Charts of the report: progress by trial, gain by kept edit, loss curves, shares of time, sources by trial."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
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
    summary = night.summary
    metric = text.line(summary.metric)
    label = f"{metric} by trial: {summary.kept} of {summary.trials} kept"
    root = svg.canvas(width, height, label, "chart progress")
    box = svg.Box(58 if width > 600 else 50, 26, width - 14, height - 30 - LANE)
    low, high = night.value_range
    last = max(len(night.state.records), 1)
    x = svg.linear(-0.6, last + 0.6, box.left, box.right)
    y = svg.linear(low, high, box.bottom, box.top)
    numbers = svg.whole_ticks(last, width // 90)
    svg.axes(root, svg.Box(box.left, box.top, box.right, box.bottom + LANE), (x, numbers), (y, svg.ticks(low, high, 6)))
    star = text.STAR if summary.self_reported else ""
    svg.add(root, "text", f"{metric}{star}, {text.better(summary.goal)}", cls="tick axis", x=box.left, y=14)
    svg.add(root, "text", "trial", cls="tick axis", x=box.right, y=14, text_anchor="end")
    svg.zoomable(root, box, (-0.6, last + 0.6), (low, high))
    early, marked = apart(night.attempts)
    stretched = svg.add(root, "g", cls="stretched")
    cloud = [(x(a.trial), y(a.value)) for a in early if a.value is not None and low <= a.value <= high]
    svg.cloud(stretched, cloud)
    _branch(stretched, night.steps, summary.noise_sd, last, x, y, box)
    for run in (run for run in night.state.baseline_runs if run.counts):
        mark = svg.add(root, "circle", cls="calibration", cx=x(0), cy=y(_within(run.value or 0.0, low, high)), r=3)
        svg.tip(mark, f"baseline, {run.role} run\n{metric} {text.number(run.value, run.self_reported)}")
    if any(attempt.value is None for attempt in marked):
        svg.add(root, "text", "none", cls="tick axis", x=box.left - 6, y=box.bottom + LANE - 5, text_anchor="end")
    reached = {step.trial: step.value for step in night.steps}
    for attempt in sorted(marked, key=lambda a: a.decision == "keep"):  # kept ones on top
        _attempt(root, attempt, reached.get(attempt.trial, attempt.value), metric, (low, high), x, y, box)
    return svg.render(root)


def _branch(
    root: svg.Element, steps: Sequence[Step], sd: float | None, last: int, x: svg.Scale, y: svg.Scale, box: svg.Box
) -> None:
    corners: list[tuple[float, float]] = []
    ends = [*reached_at(steps), last + 0.6]
    for step, (start, end) in zip(steps, pairwise(ends), strict=True):
        corners += [(start, step.value), (end, step.value)]
    if sd:
        upper = [(x(t), max(box.top, y(v + 2 * sd))) for t, v in corners]
        lower = [(x(t), min(box.bottom, y(v - 2 * sd))) for t, v in corners]
        svg.add(root, "path", cls="band", d=svg.line([*upper, *reversed(lower)]) + "Z")
    svg.add(root, "path", cls="staircase", d=svg.line([(x(t), y(v)) for t, v in corners]))


def _attempt(
    root: svg.Element, attempt: Attempt, value: float | None, metric: str, span: tuple[float, float],
    x: svg.Scale, y: svg.Scale, box: svg.Box,
) -> None:  # fmt: skip
    at, subject = x(attempt.trial), text.line(attempt.subject, 90)
    head = f"trial {attempt.trial} · {attempt.outcome}"
    link = svg.add(root, "a", href=f"#trial-{attempt.trial}")
    if attempt.value is None or value is None:
        mid, r = box.bottom + LANE - 9, 3
        if attempt.record.failed:
            d = f"M{at - r:.1f} {mid - r}L{at + r:.1f} {mid + r}M{at - r:.1f} {mid + r}L{at + r:.1f} {mid - r}"
        else:  # stopped, since it was certain to lose
            d = f"M{at - r:.1f} {mid}h{2 * r}"
        mark = svg.add(link, "path", cls="fail" if attempt.record.failed else "stopped", d=d)
        svg.tip(mark, f"{head}\n{subject}")
        return
    words = f"{metric} {text.number(attempt.value, attempt.self_reported)}   {text.gain(attempt.gain, attempt.gain_se)}"
    low, high = span
    up = y(_within(value, low, high))
    if low <= value <= high:
        kept = attempt.decision == "keep"
        mark = svg.add(link, "circle", cls="keep" if kept else "revert", cx=at, cy=up, r=5 if kept else 3.2)
    else:
        tilt = -5 if value > high else 5
        mark = svg.add(link, "path", cls="revert", d=f"M{at - 4:.1f} {up:.1f}h8l-4 {tilt}Z")
        words += " (outside the range of this chart)"
    svg.tip(mark, f"{head}\n{words}\n{subject}")


def _within(value: float, low: float, high: float) -> float:
    return min(high, max(low, value))


def gain_chart(night: Night, width: int = 960, height: int = 300) -> str:
    """Draw the gain by kept edit as a waterfall, and that on the test split as diamonds; "" if nothing was kept."""
    edits = night.steps[1:]
    if not edits:
        return ""
    shown = [step.gain for step in night.steps] + [step.test_gain for step in edits if step.test_gain is not None]
    low, high = padded(min(shown), max(shown))
    root = svg.canvas(width, height, f"gain in {text.line(night.summary.metric)} by kept edit", "chart gains")
    box = svg.Box(58 if width > 600 else 50, 26, width - 14, height - 34)
    y = svg.linear(low, high, box.bottom, box.top)
    slot = (box.right - box.left) / len(edits)
    svg.axes(root, box, (y, []), (y, svg.ticks(low, high, 5)))
    svg.add(root, "text", "gain since the baseline", cls="tick axis", x=box.left, y=14)
    svg.add(root, "text", "trial", cls="tick axis", x=box.right, y=14, text_anchor="end")
    thickness = min(44.0, slot * 0.62)
    every = max(1, math.ceil(26 / slot))
    for k, step in enumerate(edits):
        before, left = night.steps[k].gain, box.left + slot * (k + 0.5) - thickness / 2
        middle = left + thickness / 2
        bar = svg.add(root, "rect", cls="bar" if step.gain >= before else "bar worse", x=left,
                      y=min(y(before), y(step.gain)), width=thickness,
                      height=max(1.5, abs(y(before) - y(step.gain))))  # fmt: skip
        subject = text.line(step.subject, 90)
        svg.tip(bar, f"trial {step.trial}: {text.gain(step.gain - before)}\nsum {text.gain(step.gain)}\n{subject}")
        if step is not edits[-1]:
            at = y(step.gain)
            svg.add(root, "line", cls="joint", x1=left + thickness, x2=left + slot, y1=at, y2=at)
        if k % every == 0:
            svg.add(root, "text", str(step.trial), cls="tick", x=middle, y=box.bottom + 16, text_anchor="middle")
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
    low, high = padded(min(losses), max(losses))
    root = svg.canvas(width, height, "training loss over the budget, beside the parent's", "chart curve")
    box = svg.Box(44, 20, width - 8, height - 20)
    begin = min(100 * CUT, *(100 * p.progress for p in (*own, *other)))
    x = svg.linear(begin, 100, box.left, box.right)
    y = svg.linear(low, high, box.bottom, box.top)
    svg.axes(root, box, (x, [v for v in (0, 25, 50, 75, 100) if v >= begin]), (y, svg.ticks(low, high, 4)))
    svg.add(root, "text", "training loss over % of the budget", cls="tick axis", x=box.left, y=11)
    for points, name in ((other, "parent"), (own, "own")):
        path = [(x(100 * p.progress), y(p.loss)) for p in thin(list(points), 60)]
        svg.add(root, "path", cls=f"loss {name}", d=svg.line(path))
    return svg.render(root)


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
