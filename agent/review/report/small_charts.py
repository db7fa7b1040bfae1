"""Small charts by trial: each hyperparameter that changed, and the state of the search."""

from __future__ import annotations

import math
from collections.abc import Sequence

from agent import text
from agent.review.data.night import Night
from agent.review.data.tables import Series, Values, parameters_of, search_series
from agent.review.report import svg
from agent.review.report.charts import apart
from agent.types import is_number

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
    values = [value for _, value in points]
    lanes = [] if all(map(is_number, values)) else sorted({str(v) for v in values})
    at = [(a.trial, float(lanes.index(str(v)) if lanes else v)) for a, v in points]
    plot = _lanes(name, lanes, last) if lanes else _numbers(name, [height for _, height in at], last)
    on_branch = [point for (attempt, _), point in zip(points, at, strict=True) if attempt.decision == "keep"]
    if on_branch:
        corners = [on_branch[0]]
        for trial, height in on_branch[1:]:
            corners += [(trial, corners[-1][1]), (trial, height)]
        plot.line([*corners, (last, corners[-1][1])], "staircase")
    early, marked = apart([attempt for attempt, _ in points])
    heights, value_of = dict(at), {attempt.trial: value for attempt, value in points}
    svg.cloud(plot.root, [(plot.x(a.trial), plot.y(heights[a.trial])) for a in early])
    for attempt in sorted(marked, key=lambda attempt: attempt.decision == "keep"):
        look = "keep" if attempt.decision == "keep" else "lost" if attempt.record.failed else "revert"
        mark = plot.dot((attempt.trial, heights[attempt.trial]), look, 3.5 if look == "keep" else 2.0)
        words = f"trial {attempt.trial}: {text.line(str(value_of[attempt.trial]), 40)} · {attempt.outcome}"
        svg.add(mark, "title", words)
    return svg.render(plot.root)


def _numbers(name: str, values: Sequence[float], last: int) -> svg.Plot:
    """A linear axis; logarithmic for a wide range."""
    low, high = min(values), max(values)
    if low > 0 and high / low > 20:
        powers = [10.0**k for k in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)]
        levels = [p for p in powers if low <= p <= high] or [low, high]
        return _frame(SIZE, f"{name} by trial", last, (low, high), levels, log=True)
    pad = 0.08 * (high - low)
    return _frame(SIZE, f"{name} by trial", last, (low - pad, high + pad), 3)


def _lanes(name: str, lanes: Sequence[str], last: int) -> svg.Plot:
    """One lane for each value."""
    plot = _frame(SIZE, f"{name} by trial", last, (-0.5, len(lanes) - 0.5), ())
    for k, lane in enumerate(lanes):
        words, x = text.line(lane, 8), plot.box.left - 6
        svg.add(plot.root, "text", words, cls="tick", x=x, y=plot.y(k) + 3.5, text_anchor="end")
    return plot


def search_charts(night: Night) -> list[tuple[str, str]]:
    """Return (title, picture) of the step size of CMA-ES and of the model's share in Centaur, where recorded."""
    series, last = search_series(night.state.records), max(1, len(night.state.records))
    step, share = series["step"], series["model_share"]
    found = [(STEP, _step_chart(step, series["longest"], series["shortest"], last))] if len(step) > 1 else []
    return found + ([(SHARE, _share_chart(share, last))] if len(share) > 1 else [])


def _step_chart(step: Series, longest: Series, shortest: Series, last: int) -> str:
    """The step size in the unit cube."""
    values = [value for _, value in (*step, *longest, *shortest)]
    low, high = min(values) / 1.15, max(values) * 1.15
    levels = [m * 10.0**k for k in range(-12, 3) for m in (1, 2, 5) if low <= m * 10.0**k <= high] or [low, high]
    plot = _frame(SEARCH_SIZE, "step size of CMA-ES by trial", last, (low, high), levels, log=True)
    if len(longest) > 1:
        plot.line([*longest, *reversed(shortest)], "band", "Z")
    plot.line(step, "staircase")
    return svg.render(plot.root)


def _share_chart(share: Series, last: int) -> str:
    plot = _frame(SEARCH_SIZE, "share of the model by trial", last, (0, 1), (0, 0.2, 0.4, 0.6, 0.8, 1))
    plot.line(share, "staircase")
    return svg.render(plot.root)


def _frame(
    size: tuple[int, int],
    label: str,
    last: int,
    y: tuple[float, float],
    levels: int | Sequence[float],
    log: bool = False,
) -> svg.Plot:
    cls, about = ("chart parameter", 4) if size == SIZE else ("chart search", 6)
    numbers, margins = svg.whole_ticks(last, about), (52, 10, 8, 20)
    return svg.plot(size, label, cls, (0, last), y, numbers=numbers, levels=levels, margins=margins, log=log)
