"""The curves of a comparison: the best value so far of each method, mean over seeds, with a band of one deviation."""

from __future__ import annotations

from statistics import quantiles

from agent import text
from agent.compare.statistics import Contrast, band
from agent.review.report import svg

TOO_HIGH = 2.0  # curves may leave the picture upwards at this many heights of their lower half


def curves(contrast: Contrast, width: int = 960, height: int = 400) -> str:
    """A vector image. Line k has the classes ``method`` and ``mk``."""
    metric = text.line(contrast.metric)
    root = svg.canvas(width, height, f"best {metric} so far by trial, for each method", "chart compare")
    bands = []
    for method in contrast.methods:
        cells = [cell for cell in contrast.cells if cell.method == method and cell.best]
        shortest = min((cell.trials for cell in cells), default=-1)
        bands.append(band(cells, shortest))
    values = [v for points in bands for _, mean, low, high in points for v in (mean, low, high)]
    if not values:
        svg.add(root, "text", "Nothing was measured yet.", cls="tick", x=20, y=30)
        return svg.render(root)
    box = svg.Box(62 if width > 600 else 54, 26, width - 14, height - 26)
    low, high = _range(values)
    last = max((points[-1][0] for points in bands if points), default=1)
    x, y = svg.linear(0, max(last, 1), box.left, box.right), svg.linear(low, high, box.bottom, box.top)
    whole = [v for v in svg.ticks(0, max(last, 1), width // 90) if v == int(v)]
    svg.axes(root, box, (x, whole), (y, svg.ticks(low, high, 6)))
    arrow = "higher is better ↑" if contrast.goal == "maximize" else "lower is better ↓"
    svg.add(root, "text", f"best {metric} so far, {arrow}", cls="tick axis", x=box.left, y=14)
    svg.add(root, "text", "trial", cls="tick axis", x=box.right, y=14, text_anchor="end")
    for k, points in enumerate(bands):
        upper = [(x(t), _clip(y(high_), box)) for t, _, _, high_ in points]
        lower = [(x(t), _clip(y(low_), box)) for t, _, low_, _ in points]
        if len(points) > 1:
            svg.add(root, "path", cls=f"sd m{k}", d=svg.line([*upper, *reversed(lower)]) + "Z")
    for k, (method, points) in enumerate(zip(contrast.methods, bands, strict=True)):
        if points:
            path = [(x(t), _clip(y(mean), box)) for t, mean, _, _ in points]
            mark = svg.add(root, "path", cls=f"method m{k}", d=svg.line(path))
            svg.tip(mark, f"{method}: {text.number(points[-1][1])} after {text.count(points[-1][0], 'trial')}")
    return svg.render(root)


def _range(values: list[float]) -> tuple[float, float]:
    """Most of the values; one bad start does not flatten all that follows."""
    low, high = min(values), max(values)
    if len(values) > 20:
        cuts = quantiles(values, n=20)
        span = max(cuts[-1] - low, 1e-12)
        high = min(high, low + TOO_HIGH * span)
    pad = 0.04 * (high - low) or abs(high) * 0.01 or 0.5
    return low - pad, high + pad


def _clip(at: float, box: svg.Box) -> float:
    return min(max(at, box.top), box.bottom)
