"""Three-way merge of texts by lines, for taking single edits out of a branch.

Unlike git's, it lets edits touch: hyperparameters stand on neighbouring lines, and edits of two neighbours do not
contradict one another. Edits that overlap, or that insert at the same place, do.
"""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class _Change:
    start: int  # lines of the base, from here
    end: int  # to before here
    lines: tuple[str, ...]  # what stands there instead


def merge(base: str, ours: str, theirs: str) -> str | None:
    """The base with the changes of both; None where they contradict one another."""
    lines = base.splitlines(keepends=True)
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


def _changes(base: Sequence[str], text: str) -> list[_Change]:
    lines = text.splitlines(keepends=True)
    matcher = difflib.SequenceMatcher(None, base, lines, autojunk=False)
    return [
        change
        for tag, start, end, j1, j2 in matcher.get_opcodes()
        if tag != "equal"
        for change in _split(start, end, tuple(lines[j1:j2]))
    ]


def _split(start: int, end: int, lines: tuple[str, ...]) -> list[_Change]:
    """Lines replaced by as many lines are changes of one line each."""
    if end - start != len(lines):
        return [_Change(start, end, lines)]
    return [_Change(start + k, start + k + 1, (line,)) for k, line in enumerate(lines)]
