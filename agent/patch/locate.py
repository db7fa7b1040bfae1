"""Where a hunk belongs: a pure function from the lines of a file and hunks to the lines of the edited file.

A hunk is placed by its old lines (context and deletions), never by its number. They are looked for in steps, and the
first step that finds any place is the last one taken:

1. the lines themselves, but for white space at their ends;
2. the same with two slips of the pen undone: a blank line beside added lines that has lost its plus, or context lines
   that have all lost their marker;
3. blank context lines may be missing or too many, where nothing is added or deleted beside them;
4. 1 and 3 with indentation that is off by the same amount everywhere, or written with tabs; added lines move with it;
5. a context line of dots stands for lines left out: the parts before and after it are placed one after the other.

No line of context is ever dropped or guessed, and lines that are kept stay as the file has them. All hunks of a diff
are placed together: in their order, their changes apart. If that leaves one result, the text has determined the place.
If it leaves several, the header numbers decide only if they are believable: every header of the diff well formed, every
count right, the numbers consistent with each other, and every hunk exactly at its number (a hunk with little context
and more than two places also needs a hunk beside it whose place is certain). Failing that, the text after the second
``@@`` may decide, if exactly one result lies in that section. Anything else is ``NotPlaced``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property

from agent.patch.disambiguate import NotPlaced, Place, Result, choose, splice
from agent.patch.parse import Hunk, Line
from agent.patch.reindent import moved_along

_DOTS = re.compile(r"\s*(?:#|//)?\s*[\[(<{]?\s*(?:\.\.\.|…)[\w\s,.:;'’/…)>}\]-]*")
_Search = Callable[["_Source", Hunk, bool], Iterator[Place]]


def place(lines: Sequence[str], hunks: Sequence[Hunk]) -> list[str | Line]:
    """``lines`` (without line ends) with all ``hunks`` applied; added lines come as Line. Raises NotPlaced."""
    return [lines[item] if isinstance(item, int) else item for item in splice(0, len(lines), locate(lines, hunks))]


def locate(lines: Sequence[str], hunks: Sequence[Hunk]) -> Result:
    """The place of each hunk of one diff (of each part, where dots split a hunk). Raises NotPlaced."""
    source = _Source(lines)
    parts: list[tuple[int, Hunk]] = []
    found: list[list[Place]] = []
    for number, hunk in enumerate(hunks):
        if not hunk.changes:
            if hunk.lines and not any(_together(source, hunk, loose=False)):
                raise NotPlaced("it changes nothing, and its lines are not in the file", number)
            continue
        if not hunk.old and lines:
            raise NotPlaced("it only adds lines and quotes none of the file: add a line of context", number)
        for part in _parts(source, hunk):
            places = _places(source, part)
            if not places:
                raise NotPlaced("its lines are not in the file", number)
            parts.append((number, part))
            found.append(places)
    if any(places[0].loose for places in found):  # where indentation has slipped once, it proves nothing elsewhere
        for (_, part), places in zip(parts, found, strict=True):
            known = {spot.start for spot in places}
            places += [spot for spot in _together(source, part, True) if spot.start not in known]
    return choose(lines, parts, found)


# --- one hunk -------------------------------------------------------------------------------------------------------


class _Source:
    """The file, prepared for searching. Tight lines have no trailing white space, loose ones no white space around."""

    def __init__(self, lines: Sequence[str]) -> None:
        self.lines = lines
        self.tight = [line.rstrip() for line in lines]

    @cached_property
    def loose(self) -> list[str]:
        return [line.strip() for line in self.lines]

    @cached_property
    def full(self) -> list[int]:
        """Numbers of the lines that are not blank."""
        return [number for number, line in enumerate(self.tight) if line]

    @cached_property
    def indexes(self) -> dict[tuple[bool, bool], tuple[list[str], dict[str, list[int]]]]:
        return {}

    def index(self, loose: bool, dense: bool) -> tuple[list[str], dict[str, list[int]]]:
        """Lines to search in (``dense``: without blank ones), and where each of them occurs."""
        if (loose, dense) not in self.indexes:
            hay = self.loose if loose else self.tight
            hay = [hay[number] for number in self.full] if dense else hay
            where: dict[str, list[int]] = {}
            for number, line in enumerate(hay):
                where.setdefault(line, []).append(number)
            self.indexes[loose, dense] = hay, where
        return self.indexes[loose, dense]

    @cached_property
    def unit(self) -> int:
        """Columns of one step of indentation, as most files have them."""
        steps = [len(line) - len(line.lstrip(" ")) for line in self.lines if line.startswith(" ") and line.strip()]
        return next((unit for unit in (4, 2, 3) if sum(step % unit == 0 for step in steps) > 0.9 * len(steps)), 1)


def _places(source: _Source, hunk: Hunk) -> list[Place]:
    """Every place of the first step that finds one."""
    verbatim = source.index(loose=False, dense=False)[1]
    if not hunk.exact and any(line.sign != " " and line.raw.rstrip() in verbatim for line in hunk.lines):
        return []  # a line of the file that begins with a sign, or a changed line: nobody can tell
    if places := list(_together(source, hunk, False)):
        return [replace(spot, strict=True) for spot in places]
    slips = list(_slips(hunk))
    steps: list[tuple[_Search, Hunk, bool]] = [
        *((_together, reading, False) for reading in slips),
        *((_apart, reading, False) for reading in [hunk, *slips]),
        (_together, hunk, True),
        (_apart, hunk, True),
    ]
    return next((places for search, reading, loose in steps if (places := list(search(source, reading, loose)))), [])


def _slips(hunk: Hunk) -> Iterator[Hunk]:
    """Other readings of a hunk: what it says if the pen slipped in one of the common ways."""
    lines = hunk.lines
    blank = [line.sign == " " and not line.raw for line in lines]
    for least in () if hunk.exact else (2, 1):  # on how many sides of the blank line something is added
        pluses = list(lines)
        for at, line in enumerate(lines):
            before = next((lines[k].sign for k in range(at - 1, -1, -1) if not blank[k]), "")
            after = next((lines[k].sign for k in range(at + 1, len(lines)) if not blank[k]), "")
            if blank[at] and (before, after).count("+") >= least:
                pluses[at] = line._replace(sign="+", text="")
        reading = replace(hunk, lines=tuple(pluses))
        if reading != hunk and reading.old and (least == 2 or reading.growth == hunk.claimed):
            yield reading
    unmarked = tuple(line._replace(text=line.raw) if line.sign == " " else line for line in lines)
    if unmarked != lines and not _off_by_one(lines):
        yield replace(hunk, lines=unmarked, exact=False)


def _off_by_one(lines: Sequence[Line]) -> bool:
    """Whether all lines may have lost one column, rather than only context its marker."""
    if any(line.sign == "-" or (line.sign == " " and line.raw[:1] not in ("", " ")) for line in lines):
        return False
    added = [line.text for line in lines if line.sign == "+" and line.text.strip()]
    return all((len(text) - len(text.lstrip())) % 4 == 3 for text in added)


def _search(needle: list[str], hay: list[str], where: dict[str, list[int]]) -> Iterator[int]:
    """Where ``needle`` occurs in ``hay``, by its rarest line."""
    if not needle:
        return
    anchor = min(range(len(needle)), key=lambda at: len(where.get(needle[at], ())))
    for hit in where.get(needle[anchor], ()):
        start = hit - anchor
        if start >= 0 and hay[start : start + len(needle)] == needle:
            yield start


def _together(source: _Source, hunk: Hunk, loose: bool) -> Iterator[Place]:
    """Places where the old lines stand as the hunk has them, blank lines included."""
    old = hunk.old
    if not old and not source.lines:
        yield Place(0, 0, hunk.lines)
    hay, where = source.index(loose, dense=False)
    for start in _search([line.text.strip() if loose else line.text.rstrip() for line in old], hay, where):
        if spot := _filled(source, hunk, range(start, start + len(old)), loose):
            yield spot


def _apart(source: _Source, hunk: Hunk, loose: bool) -> Iterator[Place]:
    """Places where the lines that are not blank stand as the hunk has them, and blank lines differ harmlessly."""
    if (hunk.claimed or 0) > hunk.growth and not all(line.raw for line in hunk.lines):
        return  # a blank line without its marker may be one that is to be added
    hay, where = source.index(loose, dense=True)
    needle = [line.text.strip() if loose else line.text.rstrip() for line in hunk.old if line.text.strip()]
    for first in _search(needle, hay, where):
        numbers = source.full[first : first + len(needle)]
        aligned = _aligned(source, hunk, numbers)
        if aligned and (spot := _filled(source, *aligned, loose)):
            yield spot


def _aligned(source: _Source, hunk: Hunk, numbers: list[int]) -> tuple[Hunk, range] | None:
    """``hunk`` with the blank lines that the file has, and the lines it covers; None if a blank line matters.

    ``numbers`` are the places of the old lines that are not blank; all lines of the file between them are.
    """
    gaps: list[list[Line]] = [[]]
    firm: list[Line] = []
    for line in hunk.lines:
        if line.sign == "+" or not line.text.strip():
            gaps[-1].append(line)
        else:
            firm.append(line)
            gaps.append([])
    for side in (0, -1):
        if not any(line.raw for line in gaps[side]):
            gaps[side] = []  # layout: blank lines after the header, or before what follows
    covered = [sum(line.sign != "+" for line in gap) for gap in (gaps[0], gaps[-1])]
    begin, end = numbers[0] - covered[0], numbers[-1] + 1 + covered[1]
    ends = source.tight[max(begin, 0) : numbers[0]] + source.tight[numbers[-1] + 1 : end]
    if any(ends) or len(ends) != sum(covered):
        return None
    lines = gaps[0]
    for at, line in enumerate(firm):
        lines.append(line)
        if at + 1 == len(firm):
            break
        gap, blank = gaps[at + 1], numbers[at + 1] - numbers[at] - 1
        if (quoted := sum(other.sign != "+" for other in gap)) != blank:
            if quoted > blank and any(not other.raw for other in gap):
                return None  # a blank line without its marker may be one that is to be added
            if "".join(other.sign for other in (line, *gap, firm[at + 1])).strip():
                return None
            gap = [Line(" ", "", "")] * blank
        lines += gap
    return replace(hunk, lines=(*lines, *gaps[-1]), exact=False), range(begin, end)


def _filled(source: _Source, hunk: Hunk, numbers: range, loose: bool) -> Place | None:
    """The place with its new lines; None if no one indentation explains what the hunk quotes."""
    lines: Sequence[Line] = hunk.lines
    if loose:
        pairs = [(line.sign, line.text, source.lines[at]) for line, at in zip(hunk.old, numbers, strict=True)]
        moved = moved_along(pairs, [line.text for line in lines if line.sign == "+"], source.unit)
        if moved is None:
            return None
        texts = iter(moved)
        lines = [line._replace(text=next(texts)) if line.sign == "+" else line for line in lines]
    new: list[int | Line] = []
    number = numbers.start
    for line in lines:
        if line.sign == "+":
            new.append(line)
            continue
        if line.sign == " ":
            new.append(number)
        number += 1
    return Place(numbers.start, numbers.stop, tuple(new), loose=loose)


# --- dots -----------------------------------------------------------------------------------------------------------


def _parts(source: _Source, hunk: Hunk) -> list[Hunk]:
    """The hunk, or the pieces around its lines of dots if it has no place as it stands."""
    dots = [at for at, line in enumerate(hunk.lines) if line.sign == " " and _DOTS.fullmatch(line.text)]
    if not dots or _places(source, hunk):
        return [hunk]
    pieces: list[Hunk] = []
    begin = 0
    for at in [*dots, len(hunk.lines)]:
        lines = hunk.lines[begin:at]
        while lines and lines[0].sign == " " and not lines[0].text.strip():
            lines = lines[1:]
        while lines and lines[-1].sign == " " and not lines[-1].text.strip():
            lines = lines[:-1]
        if lines:
            pieces.append(replace(hunk, lines=lines, exact=False))
        begin = at + 1
    if any(not piece.old for piece in pieces):
        return [hunk]  # lines added between dots have no place
    return pieces
