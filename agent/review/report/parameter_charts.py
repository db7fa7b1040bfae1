"""Hyperparameters over the night: one small chart for each that was ever changed."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from agent import text
from agent.ledger.state import State
from agent.review.report import svg
from agent.review.report.charts import apart
from agent.types import Record, Value

WIDTH, HEIGHT = 300, 130
Points = Sequence[tuple[Record, Value]]


def parameter_charts(state: State) -> list[tuple[str, str]]:
    """(name, picture) of every hyperparameter that took more than one value, in the order of the block."""
    tried = [(r, r.proposal.params) for r in state.finished if r.proposal.params]
    names = dict.fromkeys(name for _, params in tried for name in params)
    found = []
    for name in names:
        points = [(record, params[name]) for record, params in tried if name in params]
        if len({repr(value) for _, value in points}) > 1:
            shown = text.line(name, 40)
            found.append((shown, _chart(shown, points, len(state.records))))
    return found


def _chart(name: str, points: Points, last: int) -> str:
    """Every value that was tried, and the line of those on the branch."""
    root = svg.canvas(WIDTH, HEIGHT, f"{name} by trial", "chart parameter")
    box = svg.Box(52, 10, WIDTH - 8, HEIGHT - 20)
    x = svg.linear(0, max(1, last), box.left, box.right)
    level = _levels(root, [value for _, value in points], box)
    svg.axes(root, box, (x, [v for v in svg.ticks(0, max(1, last), 4) if v == int(v)]), (x, []))
    kept = [(x(r.number), level(value)) for r, value in points if r.decision == "keep"]
    if kept:
        corners = [kept[0]]
        for at, up in kept[1:]:
            corners += [(at, corners[-1][1]), (at, up)]
        svg.add(root, "path", cls="staircase", d=svg.line([*corners, (box.right, corners[-1][1])]))
    early, told = apart([record for record, _ in points])
    values = {record.number: value for record, value in points}
    svg.cloud(root, [(x(record.number), level(values[record.number])) for record in early])
    for record in sorted(told, key=lambda record: record.decision == "keep"):
        value = values[record.number]
        look = "keep" if record.decision == "keep" else "revert" if record.status == "ok" else "lost"
        size = 3.5 if look == "keep" else 2.0
        mark = svg.add(root, "circle", cls=look, cx=x(record.number), cy=level(value), r=size)
        outcome = record.decision if record.status == "ok" else record.status
        svg.add(mark, "title", f"trial {record.number}: {text.line(str(value), 40)} · {outcome}")
    return svg.render(root)


def _levels(root: svg.Element, values: Sequence[Value], box: svg.Box) -> Callable[[Value], float]:
    """The height of a value. Draws the axis: linear, logarithmic for wide ranges, lanes for what is not a number."""
    if all(isinstance(v, (int, float)) and not isinstance(v, bool) and math.isfinite(v) for v in values):
        numbers = [float(v) for v in values]
        low, high = min(numbers), max(numbers)
        wide = low > 0 and high / low > 20
        pad = 0.0 if wide else 0.08 * (high - low)
        scale = (svg.logarithmic if wide else svg.linear)(low - pad, high + pad, box.bottom, box.top)
        svg.axes(root, box, (scale, []), (scale, _powers(low, high) if wide else svg.ticks(low - pad, high + pad, 3)))
        return lambda value: scale(float(value))
    lanes = sorted({str(v) for v in values})
    row = svg.linear(-0.5, len(lanes) - 0.5, box.bottom, box.top)
    for k, lane in enumerate(lanes):
        svg.add(root, "text", text.line(lane, 8), cls="tick", x=box.left - 6, y=row(k) + 3.5, text_anchor="end")
    return lambda value: row(lanes.index(str(value)))


def _powers(low: float, high: float) -> list[float]:
    powers = [10.0**k for k in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)]
    return [p for p in powers if low <= p <= high] or [low, high]
