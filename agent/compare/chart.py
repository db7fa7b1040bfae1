"""Best value so far by trial: one curve per method, the mean over seeds with a band of one standard deviation."""

from __future__ import annotations

from statistics import quantiles

from agent import text
from agent.compare.statistics import Comparison, band
from agent.review.data.branch import padded
from agent.review.report import svg

TOO_HIGH = 2.0  # curves are cut off above this many times the range of their lower 95 %


def curves(comparison: Comparison, width: int = 960, height: int = 400) -> str:
    """An SVG image. The curve of method k has the classes ``method`` and ``mk``."""
    metric = text.line(comparison.metric)
    label, look = f"best {metric} so far by trial, for each method", "chart compare"
    bands = [band([c for c in comparison.cells if c.method == method and c.best]) for method in comparison.methods]
    values = [value for points in bands for _, mean, sd in points for value in (mean, mean - sd, mean + sd)]
    if not values:
        root = svg.canvas(width, height, label, look)
        svg.add(root, "text", "Nothing was measured yet.", cls="tick", x=20, y=30)
        return svg.render(root)
    low, high = min(values), max(values)
    if len(values) > 20:  # a few very bad values do not flatten all curves
        high = min(high, low + TOO_HIGH * max(quantiles(values, n=20)[-1] - low, 1e-12))
    last = max(1, *(points[-1][0] for points in bands if points))
    plot = svg.plot(
        (width, height), label, look, (0, last), padded(low, high), numbers=svg.whole_ticks(last, width // 90),
        titles=(f"best {metric} so far, {text.better(comparison.goal)}", "trial"),
    )  # fmt: skip
    for k, points in enumerate(bands):
        if len(points) > 1:
            upper = [(trial, mean + sd) for trial, mean, sd in points]
            lower = [(trial, mean - sd) for trial, mean, sd in reversed(points)]
            plot.line([*upper, *lower], f"sd m{k}", "Z")
    for k, (method, points) in enumerate(zip(comparison.methods, bands, strict=True)):
        if points:
            mark = plot.line([(trial, mean) for trial, mean, _ in points], f"method m{k}")
            svg.tip(mark, f"{method}: {text.number(points[-1][1])} after {text.count(points[-1][0], 'trial')}")
    return svg.render(plot.root)
