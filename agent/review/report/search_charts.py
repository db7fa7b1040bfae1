"""The state of a search over the night: the step of CMA-ES in sides of the unit cube, the model's share in Centaur."""

from __future__ import annotations

from agent.ledger.state import State
from agent.review.report import svg

WIDTH, HEIGHT = 460, 170
Series = list[tuple[int, float]]  # (trial, value)


def search_charts(state: State) -> list[tuple[str, str]]:
    """(what it shows, picture); empty where no search recorded its state."""
    last = max(1, len(state.records))
    found = []
    step = _series(state, "step")
    if len(step) > 1:
        title = "CMA-ES: step, within its longest and shortest axis"
        found.append((title, _step_chart(step, _series(state, "longest"), _series(state, "shortest"), last)))
    share = _series(state, "model_share")
    if len(share) > 1:
        found.append(("Centaur: share of the trials that is the model's", _share_chart(share, last)))
    return found


def _series(state: State, name: str) -> Series:
    return [(r.number, r.proposal.search[name]) for r in state.records if r.proposal.search.get(name, 0.0) > 0]


def _step_chart(step: Series, longest: Series, shortest: Series, last: int) -> str:
    root = svg.canvas(WIDTH, HEIGHT, "step size of CMA-ES by trial", "chart search")
    box = svg.Box(52, 10, WIDTH - 8, HEIGHT - 20)
    values = [value for _, value in (*step, *longest, *shortest)]
    low, high = min(values) / 1.15, max(values) * 1.15
    x, y = svg.linear(0, last, box.left, box.right), svg.logarithmic(low, high, box.bottom, box.top)
    marks = [m * 10.0**k for k in range(-12, 3) for m in (1, 2, 5) if low <= m * 10.0**k <= high]
    svg.axes(root, box, (x, _whole(last)), (y, marks or [low, high]))
    edges = [(x(trial), y(value)) for trial, value in (*longest, *reversed(shortest))]
    if len(longest) > 1:
        svg.add(root, "path", cls="band", d=svg.line(edges) + "Z")
    svg.add(root, "path", cls="staircase", d=svg.line([(x(trial), y(value)) for trial, value in step]))
    return svg.render(root)


def _share_chart(share: Series, last: int) -> str:
    root = svg.canvas(WIDTH, HEIGHT, "share of the model by trial", "chart search")
    box = svg.Box(52, 10, WIDTH - 8, HEIGHT - 20)
    x, y = svg.linear(0, last, box.left, box.right), svg.linear(0, 1, box.bottom, box.top)
    svg.axes(root, box, (x, _whole(last)), (y, [0, 0.2, 0.4, 0.6, 0.8, 1]))
    svg.add(root, "path", cls="staircase", d=svg.line([(x(trial), y(value)) for trial, value in share]))
    return svg.render(root)


def _whole(last: int) -> list[float]:
    return [v for v in svg.ticks(0, last, 6) if v == int(v)]
