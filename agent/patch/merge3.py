"""Three-way merge of texts by lines, to take single edits out of a branch.

Unlike git's merge, adjacent edits do not conflict, since hyperparameters are on adjacent lines. Overlapping edits and
insertions at the same place conflict.
"""

from __future__ import annotations

import difflib
import itertools
import re
from collections.abc import Iterator, Sequence

_Change = tuple[int, int, tuple[str, ...]]  # first changed line of the base, line after the last one, new lines


def merge(base: str, ours: str, theirs: str) -> str | None:
    """The base with the changes of both texts; None if they conflict."""
    lines = lines_of(base)
    changes = sorted({*_changes(lines, ours), *_changes(lines, theirs)})
    if any(start < end or start == begin for (begin, end, _), (start, _, _) in itertools.pairwise(changes)):
        return None
    merged: list[str] = []
    at = 0
    for start, end, new in changes:
        merged += [*lines[at:start], *new]
        at = end
    return "".join([*merged, *lines[at:]])


def lines_of(text: str) -> list[str]:
    """Lines with their ends; only LF ends a line, as in git."""
    return re.findall(r"[^\n]*\n|[^\n]+", text)


def _changes(base: Sequence[str], text: str) -> Iterator[_Change]:
    """The changes from ``base`` to ``text``. A replacement by as many lines is one change per line."""
    lines = lines_of(text)
    for tag, start, end, j1, j2 in difflib.SequenceMatcher(None, base, lines, autojunk=False).get_opcodes():
        new = tuple(lines[j1:j2])
        if tag != "equal" and end - start == len(new):
            yield from ((start + k, start + k + 1, (line,)) for k, line in enumerate(new))
        elif tag != "equal":
            yield start, end, new
