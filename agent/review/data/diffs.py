"""Diffs as data: kinds of lines, token classes and sizes."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import PurePosixPath

from pygments.lexer import Lexer
from pygments.lexers import get_lexer_for_filename
from pygments.lexers.python import PythonLexer
from pygments.token import Token
from pygments.util import ClassNotFound

from agent.text import clean, line

MOST_LINES = 2000


_HUNK = re.compile(r"@@ -\d+(?:,(\d+))? \+\d+(?:,(\d+))? @@")

_TOKENS = (
    (Token.Comment, "comment"),
    (Token.Keyword, "keyword"),
    (Token.Operator.Word, "keyword"),
    (Token.Literal.String, "string"),
    (Token.Literal.Number, "number"),
)


Pieces = list[tuple[str, str]]


def _kinds(rows: Sequence[str]) -> Iterator[str]:
    """The kind of each line: file, hunk, added, removed or context.

    The length in a hunk's header tells a removed line that begins with ``--`` from a file header.
    """
    before = after = 0
    for row in rows:
        if before > 0 or after > 0:
            kind = {"+": "added", "-": "removed"}.get(row[:1], "context")
            marker = row.startswith("\\")  # "\ No newline at end of file" does not count
            before -= kind != "added" and not marker
            after -= kind != "removed" and not marker
            yield kind
        elif row.startswith(("--- ", "+++ ", "diff ", "index ")):
            yield "file"
        elif row.startswith("@@"):
            if found := _HUNK.match(row):
                before, after = (int(size or 1) for size in found.groups())
            yield "hunk"
        else:
            yield {"+": "added", "-": "removed"}.get(row[:1], "context")


def diff_lines(diff: str) -> list[tuple[str, str]]:
    """Return (kind, line) for each line of a diff, sanitised; at most ``MOST_LINES``, with a note of the rest."""
    rows = clean(diff).rstrip("\n").split("\n") if diff.strip() else []
    found = list(zip(_kinds(rows), rows[:MOST_LINES], strict=False))
    if len(rows) > MOST_LINES:
        found.append(("hunk", f"… {len(rows) - MOST_LINES} more lines"))
    return found


def highlighted(rows: Sequence[tuple[str, str]]) -> list[tuple[str, Pieces]]:
    """Split each line of a diff into (token class, text): keyword, comment, string, number or "".

    Lines are tokenised one by one, so the middle of a string over several lines is treated as code.
    """
    found: list[tuple[str, Pieces]] = []
    language = ""
    for kind, row in rows:
        if kind == "file" and row.startswith("+++ "):
            language = PurePosixPath(row[4:].split("\t")[0]).suffix
        code = kind in ("added", "removed", "context") and row[:1] in ("+", "-", " ")
        found.append((kind, [("", row[0]), *_tokens(row[1:], language)] if code else [("", row)]))
    return found


@lru_cache(maxsize=4096)
def _tokens(code: str, language: str) -> Pieces:
    lexer = _lexer(language)
    if lexer is None:
        return [("", code)]
    found: Pieces = []
    for token, text in lexer.get_tokens(code):
        name = next((name for kind, name in _TOKENS if token in kind), "")
        if found and found[-1][0] == name:
            found[-1] = (name, found[-1][1] + text)
        else:
            found.append((name, text))
    return found


@lru_cache(maxsize=32)
def _lexer(suffix: str) -> Lexer | None:
    if suffix == ".py":  # a lookup by name takes 0.1 s
        return PythonLexer(stripnl=False, ensurenl=False)
    try:
        return get_lexer_for_filename(f"file{suffix}", stripnl=False, ensurenl=False)
    except ClassNotFound:
        return None


def size_of(diff: str) -> tuple[int, int]:
    """Return the numbers of added and removed lines."""
    kinds = [kind for kind, _ in diff_lines(diff)]
    return kinds.count("added"), kinds.count("removed")


def diff_of(before: str, after: str, names: tuple[str, str] = ("before", "after")) -> str:
    """Return the unified diff between two texts, by git's lines (str.splitlines has more); empty if they are equal."""
    old, new = (re.findall(r"[^\n]*\n|[^\n]+", text) for text in (before, after))
    rows = difflib.unified_diff(old, new, line(names[0]), line(names[1]))
    return "".join(row if row.endswith("\n") else row + "\n\\ No newline at end of file\n" for row in rows)
