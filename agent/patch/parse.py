"""Finds the unified diffs in a model's answer, among prose, fences and headers.

The parser does not know the edited file. ``agent.patch.locate`` judges line numbers and counts (``Hunk.start``,
``Hunk.exact``). An ambiguous reply is rejected.

Rules
- Hunks may be inside and outside fences. Context lines may lack their space in a fence. Outside a fence, a line without
  a marker ends the diff, and a later line with a sign makes the reply ambiguous.
- Blank lines without a marker at the end of a hunk are layout, unless correct counts make them context.
- An unclosed fence is accepted if the diff does not end with an added or deleted line.
- The signature of ``git format-patch`` or of a mail (``-- `` and a version or a name) ends a hunk.
- ``*** Update File:`` (gpt-oss) is a file header. A JSON object with the key ``diff`` or ``patch`` holds a diff.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import NamedTuple

from unidiff.errors import UnidiffParseError
from unidiff.patch import PatchSet

from agent.errors import PatchRejected
from agent.patch.fences import Segment, segments

_DIFF_INFO = {"diff", "patch", "udiff", "git", "git-diff", "unified-diff"}
_COUNTED = re.compile(r"^@@ +-(\d{1,9})(?:,(\d{1,9}))? +\+(\d{1,9})(?:,(\d{1,9}))? +@@(.*)$")
_NUMBERED = re.compile(r"^@@[\s.]*(?:-?\d[\d,]*)?[\s.]*(?:\+\d[\d,]*)?[\s.]*(?:@@)?")
_BULLET = re.compile(r"^(?:[-*] [\w`*\"'(]| {2,}[-*] \S)")
_EXTENDED = re.compile(
    r"^(?:rename (?:from|to)|copy (?:from|to)|(?:dis)?similarity index|(?:old|new) mode|"
    r"(?:new|deleted) file mode|GIT binary patch|Binary files? )\b"
)
_MODE = re.compile(  # also outside of a header
    r"^(?:(?:old|new) mode|(?:new|deleted) file mode) \d{6}$|^GIT binary patch$|^Binary files? .* differ$|"
    r"^index [0-9a-f]+\.\.[0-9a-f]+ (?:120000|160000)$"
)
_PLAIN_MODES = re.compile(r"^index [0-9a-f]+\.\.[0-9a-f]+(?: 100(?:644|755))?$")
_ENVELOPE = re.compile(
    r"^\*\*\* (?P<what>Begin Patch|End Patch|End of File|Update File:|Add File:|Delete File:|Move to:)"
    r"\s*(?P<name>.*)$"
)
_VERSION = re.compile(r"\d+(?:\.\d+)+\S*(?: \(.*\))?")  # of git, as in its signature
MAX_HUNKS = 200


class Line(NamedTuple):
    """One line of a hunk: its sign (' ', '-' or '+'), its text without the sign, and the raw line."""

    sign: str
    text: str
    raw: str
    ended: bool = True  # False before "\ No newline at end of file"


@dataclass(frozen=True)
class Hunk:
    """Lines to find and to change. ``start`` and ``new_start`` are line numbers of the header, from 1."""

    lines: tuple[Line, ...]
    start: int | None = None
    new_start: int | None = None
    exact: bool = False  # the header is well formed and its counts match the lines
    section: str = ""  # text after the second @@
    claimed: int | None = None  # growth of the file in lines by the header

    @property
    def old(self) -> tuple[Line, ...]:
        return tuple(line for line in self.lines if line.sign != "+")

    @property
    def changes(self) -> bool:
        return any(line.sign != " " for line in self.lines)

    @property
    def growth(self) -> int:
        return sum((line.sign == "+") - (line.sign == "-") for line in self.lines)


@dataclass
class FileDiff:
    """The hunks under one file header, all names in the header, and the reasons to reject the diff."""

    names: list[str] = field(default_factory=list)
    hunks: list[Hunk] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def read_diffs(answer: str) -> list[FileDiff]:
    """All diffs of an answer without reasoning, in order. Raises PatchRejected for an ambiguous answer."""
    found: list[FileDiff] = []
    for segment in segments(answer):
        inner = _diff_in_json(segment)
        parts = [segment] if inner is None else list(segments(inner))
        for part in parts:
            _Reader(part, found).read()
    if sum(len(diff.hunks) for diff in found) > MAX_HUNKS:
        raise PatchRejected(f"the reply holds more than {MAX_HUNKS} hunks; send one small change")
    return [diff for diff in found if diff.hunks or diff.problems]


def _diff_in_json(segment: Segment) -> str | None:
    text = "\n".join(segment.lines).strip()
    if not text.startswith("{"):
        return None
    try:
        value = json.loads(text, strict=False)
    except (ValueError, RecursionError):
        return None
    for key in ("diff", "patch", "unified_diff"):
        if isinstance(value, dict) and isinstance(value.get(key), str):
            return str(value[key]).replace("\r\n", "\n")
    return None


# --- headers and hunks ----------------------------------------------------------------------------------------------


class _Reader:
    """Reads the diffs of one segment into ``found``."""

    def __init__(self, segment: Segment, found: list[FileDiff]) -> None:
        self.lines, self.segment, self.found = segment.lines, segment, found
        # A header before a fence belongs to the hunks in the fence.
        self.current = found[-1] if found and not found[-1].hunks else None
        self.at = 0
        self.in_header = False

    def read(self) -> None:
        of_diff = self.segment.fenced and self.segment.info in _DIFF_INFO
        loose = of_diff and not any(line.startswith("@@") for line in self.lines)
        while self.at < len(self.lines):
            line = self.lines[self.at]
            if line.startswith("@@"):
                self._hunk(line)
            elif not self._header(line):
                after_names = self.at > 0 and self.in_header and self.lines[self.at - 1].startswith("+++ ")
                if (loose and line.strip()) or (after_names and line[:1] in (" ", "+", "-")):
                    self._hunk(None)
                else:
                    self.in_header = self.in_header and bool(line.strip())
                    self.at += 1
        if not self.segment.closed and self.current and self.current.hunks:
            last = self.current.hunks[-1]
            if not last.exact and last.lines[-1].sign != " ":
                self.current.problems.append("the reply was cut off inside the diff: its fence is never closed")

    def _new(self, names: list[str]) -> FileDiff:
        self.current = FileDiff(names=names)
        self.found.append(self.current)
        self.in_header = True
        return self.current

    def _header(self, line: str) -> bool:
        """Read one header line, or the pair of --- and +++. False for any other line."""
        following = self.lines[self.at + 1] if self.at + 1 < len(self.lines) else ""
        if line.startswith("diff --git "):
            rest = line.removeprefix("diff --git ")
            middle = len(rest) // 2  # names with spaces: the space between a/NAME and b/NAME is in the middle
            self._new(words if len(words := rest.split()) == 2 else [rest[:middle], rest[middle + 1 :]])
        elif line.startswith("--- ") and following.startswith(("+++ ", "@@")):
            diff = self.current if self.in_header and self.current and not self.current.hunks else self._new([])
            diff.names.append(line[4:])
            if following.startswith("+++ "):
                diff.names.append(following[4:])
                self.at += 1
            self.in_header = True
        elif envelope := _ENVELOPE.match(line):
            what, name = envelope["what"], envelope["name"]
            if what == "Update File:":
                self._new([name])
            elif name:
                diff = self.current if what == "Move to:" and self.current else self._new([name])
                diff.problems.append(f"{what.rstrip(':').lower()} {name!r} is not allowed")
        elif _MODE.match(line) or (self.in_header and _EXTENDED.match(line)):
            (self.current or self._new([])).problems.append(f"{line.strip()!r} is not allowed: only lines may change")
        elif not (self.in_header and _PLAIN_MODES.match(line)):
            return False
        self.at += 1
        return True

    def _hunk(self, header: str | None) -> None:
        """Read one hunk; its header is None where a diff has no hunk headers."""
        fenced, begin = self.segment.fenced, self.at + (header is not None)
        end = _end_of_body(self.lines, begin, header or "", fenced)
        hunk = _read_hunk(header or "", self.lines[begin:end], fenced)
        diff = self.current or self._new([])
        if not hunk.exact and not fenced and _signs_follow(self.lines, end):
            diff.problems.append("the end of the diff is ambiguous; put the whole diff into one ```diff fence")
        if header is not None and header.startswith("@@@"):
            diff.problems.append("a combined diff (@@@) is not allowed")
        if hunk.lines:
            diff.hunks.append(hunk)
        self.at = max(end, self.at + 1)
        self.in_header = False


def _ends_body(lines: list[str], at: int, may_be_body: bool) -> bool:
    line, following = [*lines[at : at + 2], ""][:2]
    if line.startswith(("@@", "diff --git ")) or _ENVELOPE.match(line):
        return True
    return not may_be_body and line.startswith("--- ") and following.startswith("+++ ")


def _end_of_body(lines: list[str], begin: int, header: str, fenced: bool) -> int:
    """Index after the last line that may belong to the hunk whose body starts at ``begin``."""
    counted = _COUNTED.match(header)
    counts = (int(counted[2] or 1), int(counted[4] or 1)) if counted else None
    old = new = 0
    for at in range(begin, len(lines)):
        line = lines[at]
        wanted = counts is not None and old < counts[0] and new < counts[1]
        if _ends_body(lines, at, wanted):
            return at
        if line.rstrip() == "--":
            complete = counts is not None and old >= counts[0] and new >= counts[1]
            following = next((other for other in lines[at + 1 :] if other.strip()), "")
            if complete or _VERSION.fullmatch(following.rstrip()):
                return at
        if not fenced and line and line[0] not in " \t+-\\":
            return at
        if not fenced and not line and not wanted:
            rest = next((other for other in lines[at:] if other), "")
            if rest[:1] not in (" ", "\t", "+", "-", "\\") or rest.strip() == "---":
                return at
        old += line[:1] not in ("+", "\\")
        new += line[:1] not in ("-", "\\")
    return len(lines)


def _signs_follow(lines: list[str], at: int) -> bool:
    for later in range(at, len(lines)):
        if _ends_body(lines, later, False):
            return False
        if lines[later][:1] in ("+", "-") and lines[later].strip("-+ ") and not _BULLET.match(lines[later]):
            return True
    return False


def _read_hunk(header: str, body: list[str], fenced: bool) -> Hunk:
    """The hunk by the counts of its header if they match the body, else with all lines of the body."""
    counted = _COUNTED.match(header)
    if counted is None:
        return Hunk(_without_layout(body), section=_section(_NUMBERED.sub("", header)))
    old, new = int(counted[2] or 1), int(counted[4] or 1)
    start, new_start, section, growth = int(counted[1]), int(counted[3]), _section(counted[5]), new - old
    at = 0
    while at < len(body) and (old > 0 or new > 0 or body[at].startswith("\\")):
        sign = body[at][:1] or " "
        if sign not in " +-\\":
            break
        old -= sign in " -"
        new -= sign in " +"
        at += 1
    if at and not old and not new and _only_prose(body[at:], fenced) and _well_formed(counted[0], body[:at]):
        return Hunk(_lines(body[:at]), start, new_start, True, section)
    hunk = Hunk(_without_layout(body), start, new_start, False, section, growth)
    cut = len(_lines(body)) - len(hunk.lines)
    if cut and hunk.lines and hunk.lines[-1].sign == "+" and growth == hunk.growth + cut:
        raise PatchRejected("a blank line at the end of a hunk may be an added line; begin every added line with +")
    return hunk


def _well_formed(header: str, body: list[str]) -> bool:
    """Whether unidiff reads the lines as exactly one hunk."""
    try:
        hunks = PatchSet("\n".join(["--- a/f", "+++ b/f", header, *body, ""]))[0]
    except (UnidiffParseError, IndexError):
        return False
    return len(hunks) == 1 and len(hunks[0]) == len(body)


def _only_prose(tail: list[str], fenced: bool) -> bool:
    """Whether no line after the counted lines can belong to the hunk."""
    may_belong = [line.strip() != "" and line[0] in " \t+-" for line in tail]
    if may_belong[:1] == [True]:
        return False
    return not any(may and (fenced or not _BULLET.match(line)) for may, line in zip(may_belong, tail, strict=True))


def _without_layout(body: list[str]) -> tuple[Line, ...]:
    """The lines of a hunk without blank lines at its end that have no marker."""
    lines = _lines(body)
    while lines and not lines[-1].raw:
        lines = lines[:-1]
    return lines


def _lines(body: list[str]) -> tuple[Line, ...]:
    lines: list[Line] = []
    for raw in body:
        if raw.startswith(("+", "-")):
            lines.append(Line(raw[0], raw[1:], raw))
        elif not raw.startswith("\\"):
            lines.append(Line(" ", raw.removeprefix(" "), raw))
        elif lines:
            lines[-1] = lines[-1]._replace(ended=False)
    return tuple(lines)


def _section(text: str) -> str:
    return text.strip().removesuffix("@@").strip()
