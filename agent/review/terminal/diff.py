"""Unified diffs in colour, and the difference between two texts."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.text import Text

from agent import text
from agent.ledger.state import State
from agent.repo.repo import Repo
from agent.review.data.diffs import diff_lines, diff_of, highlighted
from agent.review.data.pair import gain_between, sides
from agent.review.data.summary import summarize
from agent.text import line

STYLES = {"file": "bold", "hunk": "cyan", "added": "green", "removed": "red", "context": ""}
EMPHASIS = {"keyword": "bold", "comment": "italic", "string": "italic", "number": "bold"}  # whatever the line's colour


def diff_text(diff: str) -> Text:
    found = Text()
    for kind, pieces in highlighted(diff_lines(diff)):
        for token, piece in pieces:
            found.append(piece, style=f"{STYLES[kind]} {EMPHASIS.get(token, '')}".strip())
        found.append("\n")
    found.rstrip()
    return found


def diff_view(before: str, after: str, names: tuple[str, str] = ("before", "after")) -> RenderableType:
    """What differs, in colour."""
    joined = diff_of(before, after, names)
    return diff_text(joined) if joined else Text(f"{line(names[0])} and {line(names[1])} are the same.")


def compare_view(state: State, repo: Repo, a: str, b: str) -> RenderableType:
    """Both values, which is better and by how much, and what differs in the edited file."""
    one, other = sides(state, repo, a, b)
    summary = summarize(state)
    words = [
        f"{each.name}: {summary.metric} "
        f"{text.number(each.found.value if each.found else None, summary.self_reported)} "
        f"({text.count(each.found.n if each.found else 0, 'run')})"
        for each in (one, other)
    ]
    gain, se = gain_between(state, one, other)
    if gain is not None:
        words.append(f"{other.name} against {one.name}: {text.gain(gain, se)} (positive is better)")
    return Group(
        *(Text(text.line(line)) for line in words), Text(), diff_view(one.text, other.text, (one.name, other.name))
    )
