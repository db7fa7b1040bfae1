"""Three-way merge of texts by lines, to take single edits out of a branch.

Unlike git's merge, adjacent edits do not conflict, since hyperparameters are on adjacent lines. Overlapping edits and
insertions at the same place conflict.
"""

from __future__ import annotations

import difflib
import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class _Change:
    start: int  # first changed line of the base
    end: int  # line after the last changed one
    lines: tuple[str, ...]  # the new lines


def merge(base: str, ours: str, theirs: str) -> str | None:
    """The base with the changes of both texts; None if they conflict."""
    lines = _lines(base)
    left, right = _changes(lines, ours), _changes(lines, theirs)
    changes = sorted({*left, *right}, key=lambda c: (c.start, c.end))
    for one, other in itertools.pairwise(changes):
        same_place = one.start == other.start
        if other.start < one.end or (same_place and one.end == other.end) or (same_place and one.start == one.end):
            return None
    merged: list[str] = []
    at = 0
    for change in changes:
        merged += [*lines[at : change.start], *change.lines]
        at = change.end
    return "".join([*merged, *lines[at:]])


def _lines(text: str) -> list[str]:
    """Lines with their ends; only LF ends a line, as in git."""
    return re.findall(r"[^\n]*\n|[^\n]+", text)


def _changes(base: Sequence[str], text: str) -> list[_Change]:
    lines = _lines(text)
    matcher = difflib.SequenceMatcher(None, base, lines, autojunk=False)
    return [
        change
        for tag, start, end, j1, j2 in matcher.get_opcodes()
        if tag != "equal"
        for change in _split(start, end, tuple(lines[j1:j2]))
    ]


def _split(start: int, end: int, lines: tuple[str, ...]) -> list[_Change]:
    """A replacement by as many lines is one change per line."""
    if end - start != len(lines):
        return [_Change(start, end, lines)]
    return [_Change(start + k, start + k + 1, (line,)) for k, line in enumerate(lines)]
