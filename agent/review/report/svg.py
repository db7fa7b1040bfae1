"""SVG charts, built as a tree of elements, so that every text is escaped.

Elements carry classes; the style sheet of the page has their colours for light, dark and print.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from xml.etree import ElementTree

from agent.text import clean

Element = ElementTree.Element
Scale = Callable[[float], float]


def canvas(width: float, height: float, label: str, cls: str = "chart") -> Element:
    """Return an empty picture. ``label`` is read by screen readers."""
    view = f"0 0 {width:g} {height:g}"
    return Element("svg", {"viewBox": view, "class": cls, "role": "img", "aria-label": clean(label)})


def add(parent: Element, name: str, words: str | None = None, **attributes: float | str) -> Element:
    """Append an element. ``cls`` is the class; underscores become hyphens; numbers are rounded to 0.1."""
    named = {("class" if k == "cls" else k.replace("_", "-")): _short(v) for k, v in attributes.items()}
    child = ElementTree.SubElement(parent, name, named)
    child.text = clean(words) if words is not None else None
    return child


def tip(element: Element, words: str) -> None:
    """Set the text for hover and keyboard focus."""
    element.set("tabindex", "0")
    add(element, "title", words)


def render(root: Element) -> str:
    return ElementTree.tostring(root, encoding="unicode")


def line(points: Sequence[tuple[float, float]]) -> str:
    """Return the ``d`` of a path through points."""
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points) if points else ""


def cloud(parent: Element, points: Sequence[tuple[float, float]]) -> None:
    """Append many dots as one element without tips, so that thousands of dots stay cheap."""
    if points:
        add(parent, "path", cls="cloud", d="".join(f"M{x:.1f} {y:.1f}h0" for x, y in points))


def _short(value: float | str) -> str:
    return clean(value) if isinstance(value, str) else f"{value:.1f}".removesuffix(".0")


def linear(low: float, high: float, start: float, end: float) -> Scale:
    """Return the map of [low, high] to [start, end]; the middle if low equals high."""
    span = high - low
    return lambda v: start + (end - start) * ((v - low) / span if span else 0.5)


def logarithmic(low: float, high: float, start: float, end: float) -> Scale:
    inner = linear(math.log(low), math.log(high), start, end)
    return lambda v: inner(math.log(v))


def ticks(low: float, high: float, about: int) -> list[float]:
    """Return round numbers within [low, high], roughly ``about`` of them."""
    span = high - low
    if not (math.isfinite(span) and span > 0):
        return [low]
    raw = span / max(1, about)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [k * step for k in range(first, first + 50) if k * step <= high + step * 1e-9]


def whole_ticks(last: int, about: int) -> list[float]:
    """Return whole numbers from 0 to ``last``, roughly ``about`` of them."""
    return [v for v in ticks(0, last, about) if v == int(v)]


def tick_words(values: Sequence[float]) -> list[str]:
    """Return ticks as text, with the fewest decimals that distinguish them."""
    if len(values) < 2:
        return [f"{v:.4g}" for v in values]
    step = abs(values[1] - values[0])
    decimals = min(8, max(0, -math.floor(math.log10(step) + 1e-9))) if step > 0 else 0
    if max(abs(v) for v in values) >= 1e6:
        return [f"{v:.3g}" for v in values]
    return [f"{v:,.{decimals}f}" for v in values]


@dataclass(frozen=True)
class Box:
    """The area of the data in a chart."""

    left: float
    top: float
    right: float
    bottom: float


def zoomable(root: Element, box: Box, x: tuple[float, float], y: tuple[float, float]) -> None:
    """Store for the zoom script which values the edges of ``box`` stand for."""
    for name, numbers in (("plot", (box.left, box.top, box.right, box.bottom)), ("x", x), ("y", y)):
        root.set(f"data-{name}", " ".join(f"{v:.8g}" for v in numbers))


@dataclass(frozen=True)
class Plot:
    """A chart with axes. Points are in units of the axes; ``y`` keeps marks within the box."""

    root: Element
    box: Box
    x: Scale
    y: Scale

    def line(self, points: Sequence[tuple[float, float]], cls: str, end: str = "") -> Element:
        """Append a path through points; ``end`` is "Z" for an area."""
        return add(self.root, "path", cls=cls, d=line([(self.x(a), self.y(b)) for a, b in points]) + end)

    def dot(self, point: tuple[float, float], cls: str, r: float) -> Element:
        return add(self.root, "circle", cls=cls, cx=self.x(point[0]), cy=self.y(point[1]), r=r)


def plot(
    size: tuple[float, float], label: str, cls: str, x: tuple[float, float], y: tuple[float, float], *,
    numbers: Sequence[float] = (), levels: int | Sequence[float] = 6, titles: tuple[str, str] = ("", ""),
    margins: tuple[float, float, float, float] | None = None, log: bool = False, lane: float = 0,
) -> Plot:  # fmt: skip
    """Return a chart without data.

    Args:
        size: Width and height in pixels.
        x: Range from left to right.
        y: Range from bottom to top.
        numbers: Ticks of the horizontal axis.
        levels: Ticks of the vertical axis, or their rough number.
        titles: Above the left and the right edge.
        margins: Left, top, right and bottom, in pixels; by the width if None.
        log: Whether the vertical axis is logarithmic.
        lane: Height of a strip between the data and the ticks of the horizontal axis.
    """
    left, top, right, bottom = margins or (58 if size[0] > 600 else 50, 26, 14, 30)
    box = Box(left, top, size[0] - right, size[1] - bottom - lane)
    root = canvas(*size, label, cls)
    across, up = linear(*x, box.left, box.right), (logarithmic if log else linear)(*y, box.bottom, box.top)
    levels = ticks(*y, levels) if isinstance(levels, int) else levels
    for value, words in zip(levels, tick_words(levels), strict=True):
        at = up(value)
        add(root, "line", cls="grid", x1=box.left, x2=box.right, y1=at, y2=at)
        add(root, "text", words, cls="tick", x=box.left - 6, y=at + 3.5, text_anchor="end")
    for value, words in zip(numbers, tick_words(numbers), strict=True):
        add(root, "text", words, cls="tick", x=across(value), y=box.bottom + lane + 15, text_anchor="middle")
    for words, at, anchor in ((titles[0], box.left, "start"), (titles[1], box.right, "end")):
        if words:
            add(root, "text", words, cls="tick axis", x=at, y=top - 12, text_anchor=anchor)
    return Plot(root, box, across, lambda value: min(max(up(value), box.top), box.bottom))
