"""Applies the edit in a model's reply to one file, or raises with the exact reason.

    after = apply_reply(before, reply, "train.py")      # raises PatchRejected, or NoEffect

``agent.patch.parse`` finds the diffs and ``agent.patch.locate`` places their hunks by content. Search and replace
blocks and whole files become hunks as well (``agent.patch.blocks``, ``agent.patch.whole_file``). This module checks the
edit: it changes only lines of the one file, is bounded in size, and results in another valid program. An edit that does
not apply as a whole changes nothing.
"""

from __future__ import annotations

import contextlib
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import replace
from difflib import unified_diff as _diff_lines
from itertools import pairwise
from typing import Literal

from agent.errors import NoEffect, PatchRejected
from agent.patch.blocks import read_blocks
from agent.patch.disambiguate import NotPlaced, Place, disjoint, splice
from agent.patch.explain import explain_no_diff, explain_not_placed
from agent.patch.locate import locate
from agent.patch.merge3 import lines_of
from agent.patch.normal_form import BYTE_ORDER_MARK, parsed, program_of
from agent.patch.parse import FileDiff, Line, read_diffs
from agent.patch.reasoning import strip_reasoning
from agent.patch.whole_file import read_whole_file
from agent.text import visible

Form = Literal["diff", "blocks", "file", ""]
_FORMS: dict[Form, re.Pattern[str]] = {
    "blocks": re.compile(r"^<{5,9} ?SEARCH", re.MULTILINE),
    "diff": re.compile(r"^[ \t]*(?:@@|--- \S|\*\*\* |(?:```+|~~~+) *(?:diff|patch|udiff)\b)", re.MULTILINE),
    "file": re.compile(r"^[ \t]*(?:```|~~~)", re.MULTILINE),
}
MAX_REPLY = 1_000_000  # characters
MAX_RESULT = 500_000  # characters
MAX_ADDED_LINE = 4_000  # characters
_BIDI = set("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_CONTROLS = ("Cc", "Cs", "Zl", "Zp")  # Unicode categories
_SIDE = re.compile(r"^(?:[abciow12]|old|new|orig|original|modified|updated|before|after)/")
_BACKUP = re.compile(r"(?:\.orig|\.old|\.bak)?(?:\s+[(\d].*)?$")
_ELIDED = re.compile(
    r"^\s*#\s*\[?(?:(?:\.\.\.|…)\s*$|.*(?:\.\.\.|…).*\b(?:existing|unchanged|rest|same|remaining|previous|omitted)\b|"
    r".*\b(?:existing|unchanged|rest|same|remaining|previous|omitted)\b.*(?:\.\.\.|…))",
    re.IGNORECASE,
)


class NotPython(PatchRejected):
    """The edit applies, and the result is a syntax error."""


def apply_reply(text: str, reply: str, path: str = "train.py") -> str:
    """``text`` with the edit that ``reply`` describes.

    Args:
        text: the file.
        reply: the whole reply of a model; everything but the diff is ignored.
        path: name of the file in the diff, relative, with slashes.

    Raises:
        PatchRejected: the edit does not apply. The message quotes the nearest lines of the file.
        NoEffect: the program stays the same.
    """
    after = edited(text, reply, path)
    if after == text or (path.endswith(".py") and program_of(text) == program_of(after) != ""):
        raise NoEffect(f"the edit changes nothing that {path} does: the program is the same as before")
    return after


def edited(text: str, reply: str, path: str = "train.py") -> str:
    """Like ``apply_reply``, but accepts edits without effect on the program, such as edits of comments."""
    if len(reply) > MAX_REPLY:
        raise PatchRejected(f"the reply has {len(reply)} characters; at most {MAX_REPLY} are read")
    if text.startswith(BYTE_ORDER_MARK):  # models cannot see the mark and mostly leave it out
        reply = re.sub(rf"^([ +-]?){BYTE_ORDER_MARK}", r"\1", reply, flags=re.MULTILINE)
        return BYTE_ORDER_MARK + edited(text[1:], reply, path)
    whole = reply.replace("\r\n", "\n")
    answer = strip_reasoning(whole)
    blocks, rest = read_blocks(answer, whole)
    diffs = read_diffs(rest)
    if blocks and diffs:
        raise PatchRejected("the reply holds a diff and search and replace blocks; send one of them")
    may_be_spaced = bool(diffs) and path.endswith(".py")
    file = None if blocks or diffs else read_whole_file(answer, whole, text, path)
    diffs = [file] if file else blocks or diffs
    for diff in diffs:
        _check_names(diff, path)
    diffs = _without_repeats(diffs)
    if not _lines(diffs, "+-"):
        if file:
            return text
        raise PatchRejected("the edit adds and deletes nothing" if diffs else explain_no_diff(whole, answer, path))
    for line in _lines(diffs, "+"):
        _check_added(line.text, text)
    closer = _without_space_after_sign(diffs) if may_be_spaced else None
    if closer and _has_space_after_signs(text, diffs, closer):
        with contextlib.suppress(NotPlaced):
            return _applied(text, closer, path)
    try:
        return _applied(text, diffs, path)
    except NotPython as problem:
        try:
            return _applied(text, closer or diffs, path)
        except (NotPython, NotPlaced):
            raise problem from None


def form_of(reply: str) -> Form:
    """The form of the edit that a reply attempts, whether or not it applies; "" if there is none."""
    with contextlib.suppress(PatchRejected):
        reply = strip_reasoning(reply)
    return next((form for form, marks in _FORMS.items() if marks.search(reply)), "")


def unified_diff(before: str, after: str, path: str) -> str:
    """The unified diff (a/ and b/ headers, three lines of context) between two texts; "" if they are equal."""
    lines = _diff_lines(lines_of(before), lines_of(after), f"a/{path}", f"b/{path}")
    return "".join(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines)


def _applied(text: str, diffs: list[FileDiff], path: str) -> str:
    """``text`` with all hunks of all diffs applied. Raises PatchRejected."""
    ends = _split(text)
    lines = [line for line, _ in ends]
    places: list[Place] = []
    for number, diff in enumerate(diffs):
        try:
            places += locate(lines, diff.hunks)
        except NotPlaced as problem:
            message = explain_not_placed(problem, diff, lines, number if len(diffs) > 1 else None)
            raise NotPlaced(message, problem.hunk, problem.at) from None
    if not disjoint(places):
        raise PatchRejected("the reply holds several diffs that change the same lines; send one diff")
    has_end_marks = any(not line.ended for line in _lines(diffs, " -"))
    items = splice(0, len(lines), places)
    after = _joined(_with_spaces(items, lines) if path.endswith(".py") else items, ends, has_end_marks)
    _check_result(text, after, path)
    return after


# --- checks of the edit ---------------------------------------------------------------------------------------------


def _check_names(diff: FileDiff, path: str) -> None:
    """Raise PatchRejected unless every name in the header means ``path``."""
    if diff.problems:
        raise PatchRejected(f"the diff cannot be applied: {visible(diff.problems[0])}")
    for quoted in diff.names:
        name = quoted.split("\t")[0].strip()
        if len(name) > 1 and name[0] == name[-1] and name[0] in "\"'`":
            name = name[1:-1]
        if name == "/dev/null":
            raise PatchRejected(f"the diff creates or deletes a file; only lines of {path} may change")
        if not _means(name, path):
            raise PatchRejected(f"the diff touches {visible(name)}; only {path} may change")


def _means(name: str, path: str) -> bool:
    """Whether a name is ``path`` itself, ``path`` behind a/ or b/, or the last parts of ``path``."""
    options = {name, _SIDE.sub("", name)}
    options |= {option.removeprefix("./") for option in options}
    options |= {_BACKUP.sub("", option) for option in options}
    return any(option and (option == path or path.endswith(f"/{option}")) for option in options)


def _without_repeats(diffs: list[FileDiff]) -> list[FileDiff]:
    """The diffs without those whose hunks all occur in another diff."""
    bodies = [[[(line.sign, line.text.rstrip()) for line in hunk.lines] for hunk in diff.hunks] for diff in diffs]

    def repeated(at: int) -> bool:
        return any(
            all(body in other for body in bodies[at]) and (len(other) > len(bodies[at]) or place < at)
            for place, other in enumerate(bodies)
            if place != at
        )

    return [diff for at, diff in enumerate(diffs) if not repeated(at)]


def _check_added(added: str, text: str) -> None:
    """Check one added line of an edit of ``text``. Raises PatchRejected."""
    if len(added) > MAX_ADDED_LINE:
        raise PatchRejected(f"an added line has {len(added)} characters; at most {MAX_ADDED_LINE} are allowed")
    controls = [c for c in added if c in _BIDI or (c != "\t" and unicodedata.category(c) in _CONTROLS)]
    if controls and added not in text:
        raise PatchRejected(f"an added line holds the control character {controls[0]!a}: {visible(added)}")
    if _ELIDED.match(added) and added.strip() not in text:
        raise PatchRejected(f"an added line stands for code that was left out: {visible(added.strip())}")


def _check_result(before: str, after: str, path: str) -> None:
    if len(after) > max(MAX_RESULT, len(before)):
        raise PatchRejected(f"the edited file would have {len(after)} characters; at most {MAX_RESULT} are allowed")
    if not path.endswith(".py"):
        return
    try:
        parsed(after)
    except SyntaxError as error:
        where = ""
        if error.lineno:
            lines = after.split("\n")
            number = min(error.lineno, len(lines))
            where = f", line {error.lineno}\n{number:5d}: {visible(lines[number - 1])}"
        raise NotPython(f"the edited {path} is not Python: {visible(error.msg)}{where}") from None


# --- a space after every sign ---------------------------------------------------------------------------------------


def _without_space_after_sign(diffs: list[FileDiff]) -> list[FileDiff] | None:
    """The diffs without the space that some models write after every sign; None if a changed line has no such space."""
    if any(line.text.strip() and not line.text.startswith(" ") for line in _lines(diffs, "+-")):
        return None

    def closer(line: Line) -> Line:
        return line if line.sign == " " else line._replace(text=line.text.removeprefix(" "))

    return [
        FileDiff(diff.names, [replace(hunk, lines=tuple(map(closer, hunk.lines))) for hunk in diff.hunks])
        for diff in diffs
    ]


def _has_space_after_signs(text: str, diffs: list[FileDiff], closer: list[FileDiff]) -> bool:
    """Whether every sign certainly has a space after it, by the deleted lines or the indentation of added lines."""
    if _lines(diffs, "-"):
        return _deletes_lines_of(text, closer) and not _deletes_lines_of(text, diffs)
    # Added lines begin one column after the context beside them, or after a multiple of four.
    for hunk in (hunk for diff in diffs for hunk in diff.hunks):
        full = [(line.sign, len(line.text) - len(line.text.lstrip())) for line in hunk.lines if line.text.strip()]
        for one, other in pairwise(full):
            (_, context), (_, added) = sorted((one, other))  # " " sorts before "+"
            if one[0] != other[0] and added != context + 1 and (added % 4, context % 4) != (1, 0):
                return False
    return any(line.text.strip() for line in _lines(diffs, "+"))


def _deletes_lines_of(text: str, diffs: list[FileDiff]) -> bool:
    """Whether the diffs delete something, and only lines of the text."""
    lines = {line.rstrip() for line in text.split("\n")}
    deleted = [line.text.rstrip() for line in _lines(diffs, "-")]
    return any(deleted) and lines.issuperset(deleted)


# --- lines and their ends -------------------------------------------------------------------------------------------


def _lines(diffs: list[FileDiff], signs: str) -> list[Line]:
    """The lines with one of these signs."""
    return [line for diff in diffs for hunk in diff.hunks for line in hunk.lines if line.sign in signs]


def _split(text: str) -> list[tuple[str, str]]:
    """Lines with their ends: LF, CRLF, or "" for the last one."""
    return re.findall(r"([^\n]*?)(\r?\n|\Z)", text)[:-1]  # without the empty match at the end


def _with_spaces(items: list[int | Line], lines: Sequence[str]) -> list[int | Line]:
    """``items`` with tabs in the indentation of added lines expanded, if the file is indented with spaces only."""
    if any(line.startswith("\t") for line in lines) or not any(line.startswith("  ") for line in lines):
        return items

    def expanded(text: str) -> str:
        rest = text.lstrip(" \t")
        return text[: len(text) - len(rest)].expandtabs(4) + rest

    return [item if isinstance(item, int) else item._replace(text=expanded(item.text)) for item in items]


def _joined(items: list[int | Line], ends: list[tuple[str, str]], has_end_marks: bool) -> str:
    """The text of the edited file. An added line gets the line end of the line before it.

    The file ends with or without a newline as before, unless a "No newline" mark of the diff says otherwise.
    ``has_end_marks``: the diff marks the old end of the file, so an added last line without that mark has a newline.
    """
    if not items:
        return ""
    end = max(("\n", "\r\n"), key=[end for _, end in ends].count)
    unended = bool(ends) and ends[-1][1] == ""
    out: list[str] = []
    for item in items:
        text, own = ends[item] if isinstance(item, int) else (item.text.rstrip("\r"), "")
        end = own or end
        out.append(text + end)
    last = items[-1]
    if isinstance(last, int):
        cut = unended and last == len(ends) - 1
    else:
        cut = not last.ended or (unended and not has_end_marks)
    return "".join(out).removesuffix(end) if cut else "".join(out)
