"""The state of the search by trial: the step size of CMA-ES in the unit cube, and the model's share in Centaur."""

from __future__ import annotations

from agent.review.data.night import Night
from agent.review.data.tables import Series
from agent.review.report import svg

WIDTH, HEIGHT = 460, 170


def search_charts(night: Night) -> list[tuple[str, str]]:
    """Return (title, picture); [] if no search recorded its state."""
    last, series = max(1, night.asked), night.search
    found = []
    if len(series["step"]) > 1:
        title = "CMA-ES: step size, between its longest and shortest axis"
        found.append((title, _step_chart(series["step"], series["longest"], series["shortest"], last)))
    if len(series["model_share"]) > 1:
        found.append(("Centaur: share of asks that include the model", _share_chart(series["model_share"], last)))
    return found


def _step_chart(step: Series, longest: Series, shortest: Series, last: int) -> str:
    root = svg.canvas(WIDTH, HEIGHT, "step size of CMA-ES by trial", "chart search")
    box = svg.Box(52, 10, WIDTH - 8, HEIGHT - 20)
    values = [value for _, value in (*step, *longest, *shortest)]
    low, high = min(values) / 1.15, max(values) * 1.15
    x, y = svg.linear(0, last, box.left, box.right), svg.logarithmic(low, high, box.bottom, box.top)
    marks = [m * 10.0**k for k in range(-12, 3) for m in (1, 2, 5) if low <= m * 10.0**k <= high]
    svg.axes(root, box, (x, svg.whole_ticks(last, 6)), (y, marks or [low, high]))
    edges = [(x(trial), y(value)) for trial, value in (*longest, *reversed(shortest))]
    if len(longest) > 1:
        svg.add(root, "path", cls="band", d=svg.line(edges) + "Z")
    svg.add(root, "path", cls="staircase", d=svg.line([(x(trial), y(value)) for trial, value in step]))
    return svg.render(root)


def _share_chart(share: Series, last: int) -> str:
    root = svg.canvas(WIDTH, HEIGHT, "share of the model by trial", "chart search")
    box = svg.Box(52, 10, WIDTH - 8, HEIGHT - 20)
    x, y = svg.linear(0, last, box.left, box.right), svg.linear(0, 1, box.bottom, box.top)
    svg.axes(root, box, (x, svg.whole_ticks(last, 6)), (y, [0, 0.2, 0.4, 0.6, 0.8, 1]))
    svg.add(root, "path", cls="staircase", d=svg.line([(x(trial), y(value)) for trial, value in share]))
    return svg.render(root)
