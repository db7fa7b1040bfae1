"""Unified diffs in colour, and the difference between two texts."""

from __future__ import annotations

import difflib

from rich.console import RenderableType
from rich.text import Text

from agent.views.text import clean, line

MOST_LINES = 2000


def kind_of(row: str) -> str:
    """What a line of a unified diff is: file, hunk, added, removed or context."""
    if row.startswith(("--- ", "+++ ", "diff ", "index ")):
        return "file"
    if row.startswith("@@"):
        return "hunk"
    return {"+": "added", "-": "removed"}.get(row[:1], "context")


STYLES = {"file": "bold", "hunk": "cyan", "added": "green", "removed": "red", "context": ""}


def diff_lines(diff: str) -> list[tuple[str, str]]:
    """(kind, line) for each line of a diff, made inert; what is too long for a person is cut and said."""
    rows = clean(diff).rstrip("\n").split("\n") if diff.strip() else []
    found = [(kind_of(row), row) for row in rows[:MOST_LINES]]
    if len(rows) > MOST_LINES:
        found.append(("hunk", f"… {len(rows) - MOST_LINES} more lines"))
    return found


def diff_text(diff: str) -> Text:
    found = Text()
    for kind, row in diff_lines(diff):
        found.append(row + "\n", style=STYLES[kind])
    found.rstrip()
    return found


def size_of(diff: str) -> tuple[int, int]:
    """Lines added and removed."""
    kinds = [kind for kind, _ in diff_lines(diff)]
    return kinds.count("added"), kinds.count("removed")


def diff_of(before: str, after: str, names: tuple[str, str] = ("before", "after")) -> str:
    """The unified diff between the texts of two attempts; empty where they are the same."""
    rows = difflib.unified_diff(
        before.splitlines(keepends=True), after.splitlines(keepends=True), line(names[0]), line(names[1])
    )
    return "".join(row if row.endswith("\n") else row + "\n\\ No newline at end of file\n" for row in rows)


def diff_view(before: str, after: str, names: tuple[str, str] = ("before", "after")) -> RenderableType:
    """What differs, in colour."""
    joined = diff_of(before, after, names)
    return diff_text(joined) if joined else Text(f"{line(names[0])} and {line(names[1])} are the same.")
