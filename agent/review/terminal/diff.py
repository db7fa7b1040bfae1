"""Unified diffs in colour, and two trials side by side."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.text import Text

from agent import text
from agent.review.data.diffs import diff_lines, highlighted
from agent.review.data.pair import Pair

STYLES = {"file": "bold", "hunk": "cyan", "added": "green", "removed": "red", "context": ""}
EMPHASIS = {"keyword": "bold", "comment": "italic", "string": "italic", "number": "bold"}  # added to the line's colour


def diff_text(diff: str) -> Text:
    """Colour a unified diff."""
    found = Text()
    for kind, pieces in highlighted(diff_lines(diff)):
        for token, piece in pieces:
            found.append(piece, style=f"{STYLES[kind]} {EMPHASIS.get(token, '')}".strip())
        found.append("\n")
    found.rstrip()
    return found


def compare_view(pair: Pair) -> RenderableType:
    """Render both values, the gain of the second over the first, and the diff."""
    rows = []
    for side in (pair.a, pair.b):
        value = text.number(side.value, pair.self_reported)
        rows.append(f"{side.name}: {pair.metric} {value} ({text.count(side.runs, 'run')})")
    if pair.gain is not None:
        gain = text.gain(pair.gain, pair.gain_se)
        rows.append(f"{pair.b.name} against {pair.a.name}: {gain} (positive is better)")
    same = Text(f"{pair.a.name} and {pair.b.name} are the same.")
    return Group(*(Text(text.line(row)) for row in rows), Text(), diff_text(pair.diff) if pair.diff else same)
