"""Small charts by trial: each hyperparameter that changed, and the state of the search."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from agent import text
from agent.review.data.night import Night
from agent.review.data.tables import Series, Values, parameters_of, search_series
from agent.review.report import svg
from agent.review.report.charts import apart
from agent.types import Value

SIZE, SEARCH_SIZE = (300, 130), (460, 170)  # width and height of a hyperparameter's chart, and of one of the search
STEP, SHARE = (
    "CMA-ES: step size, between its longest and shortest axis",
    "Centaur: share of asks that include the model",
)


def parameter_charts(night: Night) -> list[tuple[str, str]]:
    """Return (name, picture) of every hyperparameter that took more than one value."""
    last = max(1, len(night.state.records))
    named = ((text.line(name, 40), points) for name, points in parameters_of(night.attempts).items())
    return [(name, _chart(name, points, last)) for name, points in named]


def _chart(name: str, points: Values, last: int) -> str:
    """Every value that was tried, and a line through the values on the branch."""
    root, box, x = _frame(SIZE, f"{name} by trial", "parameter", last)
    level = _levels(root, [value for _, value in points], box)
    svg.axes(root, box, (x, svg.whole_ticks(last, 4)), (x, []))
    kept = [(x(attempt.trial), level(value)) for attempt, value in points if attempt.decision == "keep"]
    if kept:
        corners = [kept[0]]
        for at, up in kept[1:]:
            corners += [(at, corners[-1][1]), (at, up)]
        svg.add(root, "path", cls="staircase", d=svg.line([*corners, (box.right, corners[-1][1])]))
    early, marked = apart([attempt for attempt, _ in points])
    values = {attempt.trial: value for attempt, value in points}
    svg.cloud(root, [(x(attempt.trial), level(values[attempt.trial])) for attempt in early])
    for attempt in sorted(marked, key=lambda attempt: attempt.decision == "keep"):
        value = values[attempt.trial]
        look = "keep" if attempt.decision == "keep" else "lost" if attempt.record.failed else "revert"
        size = 3.5 if look == "keep" else 2.0
        mark = svg.add(root, "circle", cls=look, cx=x(attempt.trial), cy=level(value), r=size)
        svg.add(mark, "title", f"trial {attempt.trial}: {text.line(str(value), 40)} · {attempt.outcome}")
    return svg.render(root)


def search_charts(night: Night) -> list[tuple[str, str]]:
    """Return (title, picture) of the step size of CMA-ES and of the model's share in Centaur, where recorded."""
    series, last = search_series(night.state.records), max(1, len(night.state.records))
    step, share = series["step"], series["model_share"]
    found = [(STEP, _step_chart(step, series["longest"], series["shortest"], last))] if len(step) > 1 else []
    return found + ([(SHARE, _share_chart(share, last))] if len(share) > 1 else [])


def _step_chart(step: Series, longest: Series, shortest: Series, last: int) -> str:
    """The step size in the unit cube."""
    root, box, x = _frame(SEARCH_SIZE, "step size of CMA-ES by trial", "search", last)
    values = [value for _, value in (*step, *longest, *shortest)]
    low, high = min(values) / 1.15, max(values) * 1.15
    y = svg.logarithmic(low, high, box.bottom, box.top)
    marks = [m * 10.0**k for k in range(-12, 3) for m in (1, 2, 5) if low <= m * 10.0**k <= high]
    svg.axes(root, box, (x, svg.whole_ticks(last, 6)), (y, marks or [low, high]))
    edges = [(x(trial), y(value)) for trial, value in (*longest, *reversed(shortest))]
    if len(longest) > 1:
        svg.add(root, "path", cls="band", d=svg.line(edges) + "Z")
    svg.add(root, "path", cls="staircase", d=svg.line([(x(trial), y(value)) for trial, value in step]))
    return svg.render(root)


def _share_chart(share: Series, last: int) -> str:
    root, box, x = _frame(SEARCH_SIZE, "share of the model by trial", "search", last)
    y = svg.linear(0, 1, box.bottom, box.top)
    svg.axes(root, box, (x, svg.whole_ticks(last, 6)), (y, [0, 0.2, 0.4, 0.6, 0.8, 1]))
    svg.add(root, "path", cls="staircase", d=svg.line([(x(trial), y(value)) for trial, value in share]))
    return svg.render(root)


def _frame(size: tuple[int, int], label: str, cls: str, last: int) -> tuple[svg.Element, svg.Box, svg.Scale]:
    """An empty picture, the area of its data, and the scale of trials."""
    width, height = size
    box = svg.Box(52, 10, width - 8, height - 20)
    return svg.canvas(width, height, label, f"chart {cls}"), box, svg.linear(0, last, box.left, box.right)


def _levels(root: svg.Element, values: Sequence[Value], box: svg.Box) -> Callable[[Value], float]:
    """Draw the vertical axis and return the height of a value: linear, logarithmic for wide ranges, or lanes."""
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
