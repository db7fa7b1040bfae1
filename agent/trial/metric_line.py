"""Finds the metric in a log and reads it as one whole number."""

from __future__ import annotations

import re
from typing import NamedTuple

_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?", re.ASCII)
_BEFORE = re.compile(r"(?:\d[\d.,_]*(?:[eE][-+]?)?|(?<![\w.])[-+.])$", re.ASCII)  # of a number that is cut at its left
_AFTER = re.compile(  # the rest of 8.96e-03, 3/4, 12:30, 1.#QNAN, 1.2×10^-3
    r"(?:[\w.+-]|[/:](?=\d)|#(?=[A-Z]))+| ?[×·*x] ?10(?!\d)\S*", re.ASCII
)
_COMMA = re.compile(r",\d[\w.,]*", re.ASCII)  # the rest of 1,003.34
_SPACE = re.compile(r"(?:['\u00a0\u2009\u202f]\d{3})+(?!\d)[\d.]*|(?: \d{3})+\.\d+")  # the rest of 1 003.34
_NO_VALUE = {"FAILED", "FAIL", "ERROR", "N/A", "NA", "NONE", "NULL"}
_CLOSING = ".,;:!)]}'\"%"  # punctuation after a number


_TOKENS = re.compile(  # of a pattern: a character, a class, the start of a group (named: capturing), its end
    r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|(?P<opens>\((?P<plain>\?(?!P<))?)|(?P<closes>\))", re.DOTALL
)


class _Split(NamedTuple):
    """The text of a pattern before and after its group; the first is empty for a group inside another one."""

    before: str = ""
    after: str = ""


def metric_token(text: str, pattern: str) -> str | None:
    """The token in the place of the last metric of ``text``; None if no line has one.

    A group such as ``([0-9.]+)`` may match a part of the token (``8.96`` of ``8.96e-03``) or not match it at all
    (``nan``). The whole token counts in both cases, so that no older value takes its place.
    """
    search, split = re.compile(pattern, re.M), _split(pattern)
    wide, label = _with_any_token(split, split.after), _with_any_token(split, "")
    lines = [text] if r"\n" in pattern else [line.rstrip("\r") for line in text.split("\n")]
    after = ""  # the line after the current one
    for line in reversed(lines):
        if (found := _last(search, line)) is not None:
            return _whole(line, found, split)
        if (found := _last(wide, line)) is not None:
            token = found[1] or ""
            return token or (after.strip() if read_number(after.strip()) is not None else "")
        found = _last(label, line)
        if found is not None and (is_not_finite(found[1]) or found[1].upper() in _NO_VALUE):
            return found[1]
        after = line
    return None


def _last(pattern: re.Pattern[str] | None, line: str) -> re.Match[str] | None:
    found = list(pattern.finditer(line)) if pattern else []
    return found[-1] if found else None


def read_number(token: str) -> float | None:
    """The number that is the whole token apart from closing punctuation. ``1_000`` and ``1,003.34`` are none."""
    for candidate in (token, token.rstrip(_CLOSING)):
        if _NUMBER.fullmatch(candidate):
            return float(candidate)
    return None


def is_not_finite(token: str) -> bool:
    """Whether a token is nan or infinity in a common spelling."""
    return bool(re.fullmatch(r"[-+]?(nan|inf(inity)?)", token.rstrip(_CLOSING), re.IGNORECASE))


def _whole(line: str, found: re.Match[str], split: _Split) -> str:
    """The token that holds the match of the group."""
    start, end = found.span(1)
    if start < 0:
        return ""
    token = found[1]
    if not token or token != token.strip() or " " in token:
        return token
    left = _BEFORE.search(line[:start]) if re.match(r"[\d.eE+-]", token) else None
    if left and not re.search(r"[-+,.](?:\\s[*+?]| [*+?]?)*$", split.before):  # a separator that the pattern names
        token = left[0] + token
    comma = _COMMA if re.fullmatch(r"[-+]?\d+", token) and not split.after.startswith(",") else None
    space = _SPACE if re.fullmatch(r"[-+]?\d{1,3}", token) else None
    right = _AFTER.match(line, end) or next((m for p in (comma, space) if p and (m := p.match(line, end))), None)
    if right and not split.after.startswith(right[0]):  # a unit that the pattern names: ([0-9.]+)s
        token += right[0]
    return token


def _with_any_token(split: _Split, after: str) -> re.Pattern[str] | None:
    """The pattern with a group that matches any token; None if its label is too short to mark a metric line."""
    label = re.sub(r"\\.|\(\?[a-zA-Z]+\)", "", split.before)
    if not re.search(r"[A-Za-z]{2}", label) or re.match(r"[*+?{]", split.after):
        return None
    try:
        return re.compile(rf"{split.before}(\S*){after}", re.M)
    except re.error:
        return None


def _split(pattern: str) -> _Split:
    """Cut a pattern at its only capturing group."""
    groups: list[re.Match[str]] = []  # that are open
    for token in _TOKENS.finditer(pattern):
        if token["opens"]:
            groups.append(token)
        elif token["closes"] and not (opened := groups.pop())["plain"]:
            return _Split("" if groups else pattern[: opened.start()], pattern[token.end() :])
    return _Split()
