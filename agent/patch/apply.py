"""Applies the edit in a model's reply to one file, or says exactly why not.

    after = apply_reply(before, reply, "train.py")      # raises PatchRejected, or NoEffect

``agent.patch.parse`` finds the diffs, ``agent.patch.locate`` places their hunks by content. Here is what an edit may
be: only
lines of the one file change; no rename, copy, mode, link, binary, new or deleted file; bounded in size; the result is
Python and another program than before. All or nothing: an edit that does not fit as a whole changes nothing.
"""

from __future__ import annotations

import ast
import contextlib
import difflib
import re
import unicodedata
import warnings
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

from unidiff.errors import UnidiffParseError
from unidiff.patch import PatchSet

from agent.errors import NoEffect, PatchRejected
from agent.patch.disambiguate import NotPlaced, Place, splice
from agent.patch.locate import locate
from agent.patch.normal_form import same_program
from agent.patch.parse import FileDiff, Hunk, Line, read_diffs
from agent.patch.reasoning import strip_reasoning
from agent.text import visible

MAX_REPLY = 1_000_000  # characters
MAX_RESULT = 500_000  # characters
MAX_ADDED_LINE = 4_000  # characters
_AROUND = 3  # real lines that a message quotes before and after a place
_BIDI = set("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_OTHER_SIDE = re.compile(r"^(?:old|new|orig|original|modified|updated|before|after)/")
_ELIDED = re.compile(
    r"^\s*#\s*\[?(?:(?:\.\.\.|…)\s*$|.*(?:\.\.\.|…).*\b(?:existing|unchanged|rest|same|remaining|previous|omitted)\b|"
    r".*\b(?:existing|unchanged|rest|same|remaining|previous|omitted)\b.*(?:\.\.\.|…))",
    re.IGNORECASE,
)


class NotPython(PatchRejected):
    """The edit has a place, and its result does not parse."""


def apply_reply(text: str, reply: str, path: str = "train.py") -> str:
    """``text`` with the edit that ``reply`` describes; the rest of the reply does not matter.

    ``path`` is the file's name as the diff should have it, relative, with slashes. Raises PatchRejected with a message
    that quotes the nearest real lines, NoEffect if the program would stay the same.
    """
    after = edited(text, reply, path)
    if after == text or (path.endswith(".py") and _same(text, after)):
        raise NoEffect(f"the edit changes nothing that {path} does: the program is the same as before")
    return after


def edited(text: str, reply: str, path: str = "train.py") -> str:
    """Like ``apply_reply``, for edits that may leave the program as it is, such as those of comments."""
    if len(reply) > MAX_REPLY:
        raise PatchRejected(f"the reply has {len(reply)} characters; at most {MAX_REPLY} are read")
    diffs = _without_repeats([diff for diff in read_diffs(reply) if _allowed(diff, path)])
    if not any(hunk.changes for diff in diffs for hunk in diff.hunks):
        raise PatchRejected("the diff adds and deletes nothing" if diffs else _nothing_found(reply, path))
    for diff in diffs:
        for hunk in diff.hunks:
            _check_added(hunk, text)
    closer = _without_space_after_sign(diffs) if path.endswith(".py") else None
    if closer and _is_spaced(text, diffs, closer):
        with contextlib.suppress(NotPlaced):
            return _checked(text, closer, path)
    try:
        return _checked(text, diffs, path)
    except NotPython as problem:
        try:
            return _checked(text, closer or diffs, path)
        except (NotPython, NotPlaced):
            raise problem from None


def _checked(text: str, diffs: list[FileDiff], path: str) -> str:
    after = _applied(text, diffs, path.endswith(".py"))
    _check_result(text, after, path)
    return after


def _applied(text: str, diffs: list[FileDiff], python: bool) -> str:
    """``text`` with all hunks of all diffs applied. Raises PatchRejected if one has no place."""
    ends = _split(text)
    lines = [line for line, _ in ends]
    places: list[Place] = []
    for number, diff in enumerate(diffs):
        try:
            places += locate(lines, diff.hunks)
        except NotPlaced as problem:
            message = _explain(problem, diff, lines, number if len(diffs) > 1 else None)
            raise NotPlaced(message, problem.hunk, problem.at) from None
    spans = sorted(place.span for place in places)
    if any(one[1] > other[0] or one == other for one, other in pairwise(spans)):
        raise PatchRejected("the reply holds several diffs that change the same lines; send one diff")
    marked = any(not line.ended for diff in diffs for hunk in diff.hunks for line in hunk.old)
    items = splice(0, len(lines), places)
    return _joined(_spelled_alike(items, lines) if python else items, ends, marked)


def unified_diff(before: str, after: str, path: str) -> str:
    """The unified diff (a/ and b/ headers, three lines of context) between two texts; empty if they are equal."""
    old, new = ([line + end for line, end in _split(text)] for text in (before, after))
    out: list[str] = []
    for line in difflib.unified_diff(old, new, f"a/{path}", f"b/{path}"):
        out.append(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n")
    return "".join(out)


def changed_lines(diff: str) -> int:
    """Number of lines that a diff adds and deletes."""
    try:
        if files := PatchSet(diff):
            return int(files.added + files.removed)
    except UnidiffParseError:
        pass
    signs = (line for line in diff.split("\n") if not line.startswith(("+++ ", "--- ")))
    return sum(line.startswith(("+", "-")) for line in signs)


# --- what an edit may be --------------------------------------------------------------------------------------------


def _allowed(diff: FileDiff, path: str) -> bool:
    """True, or PatchRejected: every name in the header must be the file's own."""
    if diff.problems:
        raise PatchRejected(f"the diff cannot be applied: {visible(diff.problems[0])}")
    for name in diff.names:
        clean = _clean_name(name)
        if clean.split("\t")[0] == "/dev/null":
            raise PatchRejected(f"the diff creates or deletes a file; only lines of {path} may change")
        if not _names(clean, path):
            raise PatchRejected(f"the diff touches {visible(clean)}; only {path} may change")
    return True


def _clean_name(name: str) -> str:
    name = name.split("\t")[0].strip()
    return name[1:-1] if len(name) > 1 and name[0] == name[-1] and name[0] in "\"'`" else name


def _names(name: str, path: str) -> bool:
    """Whether a header's name means ``path``: itself, behind a/ or b/, or its last parts alone."""
    options = {name, re.sub(r"^[abciow12]/", "", name), _OTHER_SIDE.sub("", name)}
    options |= {option.removeprefix("./") for option in options}
    for option in options:
        plain = re.sub(r"(?:\.orig|\.old|\.bak)?(?:\s+[(\d].*)?$", "", option)
        if any(word and (word == path or path.endswith(f"/{word}")) for word in (option, plain)):
            return True
    return False


def _without_repeats(diffs: list[FileDiff]) -> list[FileDiff]:
    """A diff that is only said again, whole or in part, counts once."""
    kept: list[FileDiff] = []
    bodies = [[[(line.sign, line.text.rstrip()) for line in hunk.lines] for hunk in diff.hunks] for diff in diffs]
    for at, diff in enumerate(diffs):
        again = any(
            all(body in other for body in bodies[at]) and (len(other) > len(bodies[at]) or place < at)
            for place, other in enumerate(bodies)
            if place != at
        )
        if not again:
            kept.append(diff)
    return kept


def _check_added(hunk: Hunk, text: str) -> None:
    for line in hunk.lines:
        if line.sign != "+":
            continue
        if len(line.text) > MAX_ADDED_LINE:
            raise PatchRejected(f"an added line has {len(line.text)} characters; at most {MAX_ADDED_LINE} are allowed")
        bad = [char for char in line.text if char in _BIDI or (unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp"))]
        bad = [char for char in bad if char != "\t"]
        if bad and line.text not in text:
            raise PatchRejected(f"an added line holds the control character {bad[0]!a}: {visible(line.text)}")
        if _ELIDED.match(line.text) and line.text.strip() not in text:
            raise PatchRejected(f"an added line stands for code that was left out: {visible(line.text.strip())}")


def _check_result(before: str, after: str, path: str) -> None:
    if len(after) > max(MAX_RESULT, len(before)):
        raise PatchRejected(f"the edited file would have {len(after)} characters; at most {MAX_RESULT} are allowed")
    if not path.endswith(".py"):
        return
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ast.parse(after)
    except SyntaxError as error:
        lines = after.split("\n")
        number = min(error.lineno or 1, len(lines))
        quoted = f"\n{number:5d}: {visible(lines[number - 1])}"
        raise NotPython(f"the edited {path} is not Python: {error.msg}, line {error.lineno}{quoted}") from None
    except (ValueError, RecursionError, MemoryError) as error:
        raise NotPython(f"the edited {path} is not Python: {visible(str(error)) or type(error).__name__}") from None


def _same(before: str, after: str) -> bool:
    try:
        return same_program(before, after)
    except SyntaxError:
        return False


def _without_space_after_sign(diffs: list[FileDiff]) -> list[FileDiff] | None:
    """The diffs without the blank that some models put after every sign; None if this is not how they are written."""
    signed = [line for diff in diffs for hunk in diff.hunks for line in hunk.lines if line.sign != " "]
    if any(line.text.strip() and not line.text.startswith(" ") for line in signed):
        return None

    def closer(line: Line) -> Line:
        return line if line.sign == " " else line._replace(text=line.text.removeprefix(" "))

    return [
        FileDiff(diff.names, [replace(hunk, lines=tuple(map(closer, hunk.lines))) for hunk in diff.hunks])
        for diff in diffs
    ]


def _is_spaced(text: str, diffs: list[FileDiff], closer: list[FileDiff]) -> bool:
    """Whether every sign certainly has a blank after it: by the deleted lines, else by where the added ones begin."""
    hunks = [hunk for diff in diffs for hunk in diff.hunks]
    if any(line.sign == "-" for hunk in hunks for line in hunk.lines):
        return _deletes_from(text, closer) and not _deletes_from(text, diffs)
    for hunk in hunks:  # what is added begins one column after the context beside it, or after a multiple of four
        full = [(line.sign, len(line.text) - len(line.text.lstrip())) for line in hunk.lines if line.text.strip()]
        for one, other in pairwise(full):
            (_, context), (_, added) = sorted((one, other))  # " " sorts before "+"
            if one[0] != other[0] and added != context + 1 and (added % 4, context % 4) != (1, 0):
                return False
    return any(line.sign == "+" and line.text.strip() for hunk in hunks for line in hunk.lines)


def _deletes_from(text: str, diffs: list[FileDiff]) -> bool:
    """Whether the diffs delete something, and only lines that the text has."""
    lines = {line.rstrip() for line in text.split("\n")}
    deleted = [line.text.rstrip() for diff in diffs for hunk in diff.hunks for line in hunk.lines if line.sign == "-"]
    return any(deleted) and lines.issuperset(deleted)


# --- lines and their ends -------------------------------------------------------------------------------------------


def _split(text: str) -> list[tuple[str, str]]:
    """Lines with their ends (LF, CRLF, or nothing for the last one). Only LF ends a line, as in Git."""
    pieces = text.split("\n")
    out = [(line[:-1], "\r\n") if line.endswith("\r") else (line, "\n") for line in pieces[:-1]]
    return [*out, (pieces[-1], "")] if pieces[-1] else out


def _spelled_alike(items: list[int | Line], lines: Sequence[str]) -> list[int | Line]:
    """Added lines that are indented with tabs, with spaces, if the file is indented with nothing else."""
    if any(line.startswith("\t") for line in lines) or not any(line.startswith("  ") for line in lines):
        return items
    return [item if isinstance(item, int) else item._replace(text=_spaced(item.text)) for item in items]


def _spaced(text: str) -> str:
    rest = text.lstrip(" \t")
    return text[: len(text) - len(rest)].expandtabs(4) + rest


def _joined(items: list[int | Line], ends: list[tuple[str, str]], marked: bool) -> str:
    """The text of the edited file. An added line ends as its neighbour; the file ends as before, or as it is told.

    ``marked``: the diff knows that the file ends without a newline, so that an added line without that mark has one.
    """
    usual = max(("\n", "\r\n"), key=[end for _, end in ends].count)
    unended = bool(ends) and ends[-1][1] == ""
    out: list[str] = []
    near = usual
    for item in items:
        if isinstance(item, int):
            line, end = ends[item]
            near = end or near
            out.append(line + (end or near))
        else:
            out.append(item.text.rstrip("\r") + near)
    if not items:
        return ""
    last = items[-1]
    told = isinstance(last, Line) and not last.ended
    kept = unended and isinstance(last, int) and last == len(ends) - 1
    if told or kept or (unended and isinstance(last, Line) and not marked):
        out[-1] = out[-1].removesuffix("\n").removesuffix("\r")
    return "".join(out)


def _nothing_found(reply: str, path: str) -> str:
    if not reply.strip():
        return "the reply is empty"
    reply = strip_reasoning(reply)
    if not reply.strip():
        return "the reply holds nothing outside its reasoning"
    if re.search(r"^<{5,} ?SEARCH", reply, re.MULTILINE):
        return "the reply holds search and replace blocks; send a unified diff with --- and +++ headers and @@ hunks"
    if re.search(r"^(?:```|~~~)", reply, re.MULTILINE):
        return f"the reply holds a code block and no unified diff of {path}; send only the lines that change, as a diff"
    return f"the reply holds no unified diff of {path}"


def _explain(problem: NotPlaced, diff: FileDiff, lines: Sequence[str], number: int | None) -> str:
    hunk = diff.hunks[problem.hunk]
    which = f"hunk {problem.hunk + 1}" + (f" of diff {number + 1}" if number is not None else "")
    out = [f"{which} cannot be placed: {problem}"]
    if problem.at:
        for start in problem.at[:3]:
            out += [f"  it fits at line {start + 1}:", *_quote(lines, start, min(len(hunk.old), 4))]
        out.append("  quote more of the lines around the change, so that only one place is left")
        return "\n".join(out)
    nearest = _nearest(hunk, lines)
    if nearest is None:
        first = next((line.text for line in hunk.old if line.text.strip()), "")
        return "\n".join([*out, f"  nothing like it is in the file: {visible(first)}"] if first else out)
    start, missing = nearest
    if missing is not None:
        out.append(f"  not in the file there: {visible(missing)}")
    out += [f"  the nearest lines of the file, from line {max(0, start - 1) + 1}:"]
    out += _quote(lines, max(0, start - 1), min(len(hunk.old) + 2, 14))
    return "\n".join(out)


def _quote(lines: Sequence[str], start: int, count: int) -> list[str]:
    return [f"{at + 1:5d}: {visible(lines[at])}" for at in range(start, min(start + count, len(lines)))]


def _nearest(hunk: Hunk, lines: Sequence[str]) -> tuple[int, str | None] | None:
    """Where most of the hunk's old lines stand, weighed by how rare they are, and the first that does not."""
    where: dict[str, list[int]] = {}
    for at, line in enumerate(lines):
        where.setdefault(line.strip(), []).append(at)
    old = [line.text.strip() for line in hunk.old]
    votes: dict[int, float] = {}
    for offset, text in enumerate(old):
        hits = where.get(text, []) if text else []
        for at in hits[:200]:
            for near, weight in ((0, 1.0), (-1, 0.5), (1, 0.5)):
                start = at - offset + near
                votes[start] = votes.get(start, 0.0) + weight / len(hits)
    if not votes:
        longest = max(old, key=len, default="")[:300]
        close = difflib.get_close_matches(longest, [key[:300] for key in list(where)[:3000] if key], n=1, cutoff=0.5)
        found = next((hits[0] for key, hits in where.items() if close and key[:300] == close[0]), None)
        return (max(0, found - _AROUND), longest) if found is not None else None
    start = max(votes, key=lambda start: (votes[start], -start))
    real = {line.strip() for line in lines[max(0, start) : start + len(old) + 1]}
    return max(0, start), next((text for text in old if text and text not in real), None)
