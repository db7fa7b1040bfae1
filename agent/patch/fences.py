"""Splits a reply at its Markdown fences."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

_FENCE = re.compile(r"^(?P<indent>[ \t]*)(?P<ticks>`{3,}|~{3,})[ \t]*(?P<info>[^`~]*)$")


@dataclass
class Segment:
    """The lines inside one fence, or between fences."""

    lines: list[str] = field(default_factory=list)
    fenced: bool = False
    info: str = ""
    closed: bool = True


def segments(text: str) -> Iterator[Segment]:
    """The fenced and the other parts of a text, in order."""
    part, indent, ticks = Segment(), "", ""
    hunk_seen = False
    for raw in text.removesuffix("\n").split("\n"):
        line = raw.rstrip("\r")
        fence = _FENCE.match(line)
        if fence and part.fenced:
            same = fence["ticks"][0] == ticks[0] and len(fence["ticks"]) >= len(ticks) and fence["indent"] == indent
            fence = fence if same else None
        elif fence and hunk_seen and fence["indent"] == " ":
            fence = None  # a context line of a diff outside a fence
        if fence is None:
            part.lines.append(line)
            hunk_seen = hunk_seen or line.startswith("@@")
            continue
        part.closed = not part.fenced or not fence["info"]
        yield _dedented(part, indent)
        opens = not part.fenced or bool(fence["info"])
        indent, ticks = fence["indent"], fence["ticks"]
        part = Segment(
            fenced=opens, info=fence["info"].strip().lower().split(" ")[0] if opens else "", closed=not opens
        )
        hunk_seen = False
    yield _dedented(part, indent)


def _dedented(part: Segment, indent: str) -> Segment:
    """The segment without the indentation of a fence in a list item."""
    if part.fenced and indent and all(line.startswith(indent) for line in part.lines if line.strip()):
        part.lines = [line[len(indent) :] for line in part.lines]
    return part
