"""The charts of the report: the night's progress, the gain edit by edit, loss curves, shares."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import quantiles

from agent import text
from agent.curves import Point, thin
from agent.ledger.state import State
from agent.review.data.summary import Summary, difference, estimate, test_value, values_of
from agent.review.report import svg
from agent.types import Record

Steps = list[tuple[int, float]]
CUT = 0.25  # loss curves are drawn from here on
MOST_MARKS = 1000  # attempts that a chart tells of one by one: as many as the table of the report has
LANE = 22  # height of the strip for attempts without a value


def staircase(state: State) -> Steps:
    """(trial, value of the branch from then on): the baseline, then each kept edit, as all its runs measured it."""
    baseline = estimate(state.baseline_runs)
    steps = [(0, baseline.value)] if baseline else []
    for record in state.kept:
        found = estimate(state.runs.get(record.candidate or "", ()))
        if found:
            steps.append((record.number, found.value))
    return steps


def focus(state: State, summary: Summary) -> tuple[float, float]:
    """The values worth a look: the branch, its noise, and most attempts; outliers are drawn at the edge."""
    steps = [value for _, value in staircase(state)]
    tried = [r.verdict.value for r in state.finished if r.verdict and r.verdict.value is not None]
    margin = 3 * (summary.noise_sd or 0.0)
    if len(tried) > 9:
        cuts = quantiles(tried, n=20)
        tried = [v for v in tried if cuts[1] <= v <= cuts[-2]]
    values = [*steps, *tried, *values_of(state.baseline_runs)]
    if not values:
        return 0.0, 1.0
    low, high = min(values) - margin, max(values) + margin
    pad = 0.06 * (high - low) or abs(high) * 0.01 or 0.5
    return low - pad, high + pad


def apart(records: Sequence[Record]) -> tuple[list[Record], list[Record]]:
    """What a chart of every attempt shows as mere dots, and what it tells of: the latest and all that was kept."""
    kept: list[Record] = []
    early: list[Record] = []
    for record in records[:-MOST_MARKS]:
        (kept if record.decision == "keep" else early).append(record)
    return early, [*kept, *records[-MOST_MARKS:]]


def progress_chart(state: State, summary: Summary, width: int = 960, height: int = 400) -> str:
    """Every attempt, the staircase of what the branch reached, and the noise around it."""
    metric = text.line(summary.metric)
    label = f"{metric} by trial: {summary.kept} of {summary.trials} kept"
    root = svg.canvas(width, height, label, "chart progress")
    box = svg.Box(58 if width > 600 else 50, 26, width - 14, height - 30 - LANE)
    low, high = focus(state, summary)
    last = max(summary.trials, len(state.records), 1)
    x = svg.linear(-0.6, last + 0.6, box.left, box.right)
    y = svg.linear(low, high, box.bottom, box.top)
    numbers = [v for v in svg.ticks(0, last, width // 90) if v == int(v)]
    svg.axes(root, svg.Box(box.left, box.top, box.right, box.bottom + LANE), (x, numbers), (y, svg.ticks(low, high, 6)))
    arrow = "higher is better ↑" if summary.goal == "maximize" else "lower is better ↓"
    star = text.STAR if summary.self_reported else ""
    svg.add(root, "text", f"{metric}{star}, {arrow}", cls="tick axis", x=box.left, y=14)
    svg.add(root, "text", "trial", cls="tick axis", x=box.right, y=14, text_anchor="end")
    svg.zoomable(root, box, (-0.6, last + 0.6), (low, high))
    early, told = apart(state.finished)
    stretched = svg.add(root, "g", cls="stretched")
    values = [(r.number, r.verdict.value) for r in early if r.verdict and r.verdict.value is not None]
    svg.cloud(stretched, [(x(number), y(value)) for number, value in values if low <= value <= high])
    _branch(stretched, staircase(state), summary.noise_sd, last, x, y, box)
    for run in state.baseline_runs:
        if run.value is not None and run.role != "test":
            mark = svg.add(root, "circle", cls="calibration", cx=x(0), cy=y(_within(run.value, low, high)), r=3)
            svg.tip(mark, f"baseline, {run.role} run\n{metric} {text.number(run.value, run.self_reported)}")
    if summary.failures:
        svg.add(root, "text", "failed", cls="tick axis", x=box.left - 6, y=box.bottom + LANE - 5, text_anchor="end")
    reached = dict(staircase(state))
    for record in sorted(told, key=lambda r: r.decision == "keep"):  # kept ones on top
        value = reached.get(record.number, record.verdict.value if record.verdict else None)
        _attempt(root, record, value, metric, (low, high), x, y, box)
    return svg.render(root)


def _branch(
    root: svg.Element, steps: Steps, sd: float | None, last: int, x: svg.Scale, y: svg.Scale, box: svg.Box
) -> None:
    corners: list[tuple[float, float]] = []
    for k, (trial, value) in enumerate(steps):
        until = steps[k + 1][0] if k + 1 < len(steps) else last + 0.6
        corners += [(trial, value), (until, value)]
    if sd:
        upper = [(x(t), max(box.top, y(v + 2 * sd))) for t, v in corners]
        lower = [(x(t), min(box.bottom, y(v - 2 * sd))) for t, v in corners]
        svg.add(root, "path", cls="band", d=svg.line([*upper, *reversed(lower)]) + "Z")
    svg.add(root, "path", cls="staircase", d=svg.line([(x(t), y(v)) for t, v in corners]))


def _attempt(
    root: svg.Element, record: Record, value: float | None, metric: str, span: tuple[float, float],
    x: svg.Scale, y: svg.Scale, box: svg.Box,
) -> None:  # fmt: skip
    verdict, at = record.verdict, x(record.number)
    head = f"trial {record.number} · {record.status if record.status != 'ok' else record.decision}"
    subject = text.line(record.proposal.subject, 90)
    link = svg.add(root, "a", href=f"#trial-{record.number}")
    if verdict is None or value is None:
        mid, r = box.bottom + LANE - 9, 3
        cross = f"M{at - r:.1f} {mid - r}L{at + r:.1f} {mid + r}M{at - r:.1f} {mid + r}L{at + r:.1f} {mid - r}"
        mark = svg.add(link, "path", cls="fail", d=cross)
        svg.tip(mark, f"{head}\n{subject}")
        return
    reported = any(run.self_reported for run in record.runs)
    words = f"{metric} {text.number(verdict.value, reported)}   {text.gain(verdict.gain, verdict.gain_se)}"
    low, high = span
    up = y(_within(value, low, high))
    if low <= value <= high:
        kept = record.decision == "keep"
        mark = svg.add(link, "circle", cls="keep" if kept else "revert", cx=at, cy=up, r=5 if kept else 3.2)
    else:
        tilt = -5 if value > high else 5
        mark = svg.add(link, "path", cls="revert", d=f"M{at - 4:.1f} {up:.1f}h8l-4 {tilt}Z")
        words += " (beyond the range of this chart)"
    svg.tip(mark, f"{head}\n{words}\n{subject}")


def _within(value: float, low: float, high: float) -> float:
    return min(high, max(low, value))


def gain_chart(state: State, summary: Summary, width: int = 960, height: int = 300) -> str:
    """The gain, kept edit by kept edit, as a waterfall; the same gain on the test split as diamonds."""
    steps = staircase(state)
    if len(steps) < 2:
        return ""
    start = steps[0][1]
    total = [difference(start, value, summary.goal) or 0.0 for _, value in steps]
    test = [test_value(state.runs.get(r.candidate or "", ())) for r in state.kept]
    gains = [difference(summary.test_baseline, value, summary.goal) for value in test]
    shown = [*total, *(g for g in gains if g is not None)]
    low, high = min(shown), max(shown)
    pad = 0.08 * (high - low) or 0.001
    root = svg.canvas(width, height, f"gain in {text.line(summary.metric)} by kept edit", "chart gains")
    box = svg.Box(58 if width > 600 else 50, 26, width - 14, height - 34)
    y = svg.linear(low - pad, high + pad, box.bottom, box.top)
    slot = (box.right - box.left) / (len(steps) - 1)
    svg.axes(root, box, (y, []), (y, svg.ticks(low - pad, high + pad, 5)))
    svg.add(root, "text", "gain since the baseline", cls="tick axis", x=box.left, y=14)
    svg.add(root, "text", "trial", cls="tick axis", x=box.right, y=14, text_anchor="end")
    thickness = min(44.0, slot * 0.62)
    every = max(1, math.ceil(26 / slot))
    for k, record in enumerate(state.kept[: len(steps) - 1]):
        left = box.left + slot * (k + 0.5) - thickness / 2
        before, after = total[k], total[k + 1]
        top = min(y(before), y(after))
        name = "bar" if after >= before else "bar worse"
        tall = max(1.5, abs(y(before) - y(after)))
        bar = svg.add(root, "rect", cls=name, x=left, y=top, width=thickness, height=tall)
        subject = text.line(record.proposal.subject, 90)
        svg.tip(bar, f"trial {record.number}: {text.gain(after - before)}\nsum {text.gain(after)}\n{subject}")
        if k + 2 < len(steps):
            svg.add(root, "line", cls="joint", x1=left + thickness, x2=left + slot, y1=y(after), y2=y(after))
        if k % every == 0:
            middle = left + thickness / 2
            svg.add(root, "text", str(record.number), cls="tick", x=middle, y=box.bottom + 16, text_anchor="middle")
        gained = gains[k]
        if gained is not None:
            mx, my = left + thickness / 2, y(gained)
            mark = svg.add(root, "path", cls="test", d=f"M{mx:.1f} {my - 5:.1f}l5 5l-5 5l-5 -5Z")
            svg.tip(mark, f"trial {record.number}, test split\n{text.gain(gained)} since the baseline")
    return svg.render(root)


def curve_chart(curve: list[Point], parent: list[Point], width: int = 330, height: int = 150) -> str:
    """Training loss over the budget, beside the parent's. The steep start is cut off, or nothing else would be seen."""
    own, other = ([p for p in points if p.progress >= CUT] or points for points in (curve, parent))
    losses = [p.loss for p in (*own, *other)]
    if not losses:
        return ""
    low, high = min(losses), max(losses)
    pad = 0.05 * (high - low) or 0.01
    root = svg.canvas(width, height, "training loss over the budget, beside the parent's", "chart curve")
    box = svg.Box(44, 20, width - 8, height - 20)
    begin = min(100 * CUT, *(100 * p.progress for p in (*own, *other)))
    x = svg.linear(begin, 100, box.left, box.right)
    y = svg.linear(low - pad, high + pad, box.bottom, box.top)
    svg.axes(root, box, (x, [v for v in (0, 25, 50, 75, 100) if v >= begin]), (y, svg.ticks(low - pad, high + pad, 4)))
    svg.add(root, "text", "training loss over % of the budget", cls="tick axis", x=box.left, y=11)
    for points, name in ((other, "parent"), (own, "own")):
        path = [(x(100 * p.progress), y(p.loss)) for p in thin(points, 60)]
        svg.add(root, "path", cls=f"loss {name}", d=svg.line(path))
    return svg.render(root)


def share_bar(parts: Mapping[str, float], words: Mapping[str, str], width: int = 960, height: int = 30) -> str:
    """One bar, divided: ``parts`` by size; ``words`` say each part's size."""
    total = sum(parts.values())
    if total <= 0:
        return ""
    root = svg.canvas(width, height, ", ".join(f"{name}: {words[name]}" for name in parts), "chart share")
    root.set("preserveAspectRatio", "none")
    left = 0.0
    for k, (name, size) in enumerate(parts.items()):
        extent = width * size / total
        part = svg.add(root, "rect", cls=f"part p{k % 6}", x=left, y=0, width=max(0.0, extent - 2), height=height)
        svg.tip(part, f"{name}: {words[name]}")
        left += extent
    return svg.render(root)


def source_strip(state: State, width: int = 960, height: int = 44) -> tuple[str, list[str]]:
    """Who proposed which trial, as a strip over the night, kept ones taller; and the sources in the order of colours.

    Empty where there was one source only.
    """
    sources = list(dict.fromkeys(r.proposal.source or "unknown" for r in state.finished))
    if len(sources) < 2:
        return "", []
    root = svg.canvas(width, height, "source of each trial, in the order of the night", "chart strip")
    root.set("preserveAspectRatio", "none")
    slot = width / len(state.finished)
    for k, record in enumerate(state.finished):
        kept = record.decision == "keep"
        name = record.proposal.source or "unknown"
        part = svg.add(
            root,
            "rect",
            cls=f"part p{sources.index(name) % 6}",
            x=k * slot,
            y=0 if kept else height / 4,
            width=max(slot - (1 if slot > 4 else 0), 0.5),
            height=height if kept else height / 2,
        )
        outcome = record.decision if record.status == "ok" else record.status
        svg.tip(part, f"trial {record.number}, {text.line(name, 30)}: {outcome}")
    return svg.render(root), [text.line(name, 30) for name in sources]
