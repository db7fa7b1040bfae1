"""Finds where hunks belong: a pure function from the lines of a file and hunks to places.

A hunk is placed by its old lines (context and deletions), not by its line numbers. The steps below run in order, and
the first step that finds a place is the last one:

1. The old lines match, but for trailing white space.
2. As 1, after one correction: a blank line beside added lines lost its plus, or all context lines lost their space.
3. Blank context lines are missing or superfluous, where nothing beside them is added or deleted.
4. As 1 and 3, with indentation that is off by a constant or written with tabs. Added lines are reindented as well.
5. A context line of dots stands for omitted lines: the parts around it are placed one after the other.

Context is never dropped or guessed, and kept lines stay as they are in the file. ``agent.patch.disambiguate`` then
chooses among the places of all hunks of a diff: in order and without overlap. If several choices remain, line numbers
decide if they are consistent: all headers well formed, all counts right, every hunk exactly at its number (with little
context and more than two places, another hunk must confirm the numbers). Next, the section after the second ``@@``
decides if exactly one choice lies in it. Otherwise ``locate`` raises NotPlaced.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import pairwise

from agent.patch.disambiguate import NotPlaced, Place, Places, resolve
from agent.patch.parse import Hunk, Line
from agent.patch.reindent import reindented

_DOTS = re.compile(r"\s*(?:#|//)?\s*[\[(<{]?\s*(?:\.\.\.|…)[\w\s,.:;'’/…)>}\]-]*")


def locate(lines: Sequence[str], hunks: Sequence[Hunk]) -> Places:
    """The places of the hunks of one diff; a hunk that dots split has several. Raises NotPlaced."""
    source = Source(lines)
    parts: list[tuple[int, Hunk]] = []
    candidates: list[list[Place]] = []
    for number, hunk in enumerate(hunks):
        if not hunk.changes:
            if hunk.lines and not any(_matches(source, hunk)):
                raise NotPlaced("it changes nothing, and its lines are not in the file", number)
            continue
        if not hunk.old and lines:
            raise NotPlaced("it only adds lines and quotes none of the file: add a line of context", number)
        for part in _split_at_dots(source, hunk):
            places = _places(source, part)
            if not places:
                raise NotPlaced("its lines are not in the file", number)
            if part.exact and part.start is None:  # a block, without line numbers that decide
                at = [source.full[first] for first in source.find(part.old, dense=True)]
                if len(at) > len(places):
                    raise NotPlaced(f"its lines fit in {len(at)} places that differ in blank lines", number, at)
            parts.append((number, part))
            candidates.append(places)
    if any(places[0].reindented for places in candidates):  # then exact indentation of other hunks is no evidence
        for (_, part), places in zip(parts, candidates, strict=True):
            known = {place.start for place in places}
            places += [place for place in _matches(source, part, loose=True) if place.start not in known]
    return resolve(lines, parts, candidates)


class Source:
    """The file, indexed for searches. A tight line has no trailing white space, a loose line none on both sides."""

    def __init__(self, lines: Sequence[str]) -> None:
        self.lines = lines
        self.tight = [line.rstrip() for line in lines]
        self.full = [number for number, line in enumerate(self.tight) if line]  # numbers of the lines with text
        self._indexes: dict[tuple[bool, bool], tuple[list[str], dict[str, list[int]]]] = {}

    def index(self, loose: bool = False, dense: bool = False) -> tuple[list[str], dict[str, list[int]]]:
        """Lines to search in (``dense``: without blank lines), and where each of them occurs."""
        if (loose, dense) not in self._indexes:
            numbers = self.full if dense else range(len(self.tight))
            hay = [self.tight[number].lstrip() if loose else self.tight[number] for number in numbers]
            where: dict[str, list[int]] = {}
            for at, line in enumerate(hay):
                where.setdefault(line, []).append(at)
            self._indexes[loose, dense] = hay, where
        return self._indexes[loose, dense]

    def find(self, old: Sequence[Line], loose: bool = False, dense: bool = False) -> Iterator[int]:
        """Where the lines ``old`` occur in the lines of ``index``, found by the rarest of them."""
        hay, where = self.index(loose, dense)
        needle = [line.text.strip() if loose else line.text.rstrip() for line in old if line.text.strip() or not dense]
        if not needle:
            return
        anchor = min(range(len(needle)), key=lambda at: len(where.get(needle[at], ())))
        for hit in where.get(needle[anchor], ()):
            start = hit - anchor
            if start >= 0 and hay[start : start + len(needle)] == needle:
                yield start

    @cached_property
    def unit(self) -> int:
        """Columns of one level of indentation."""
        steps = [len(line) - len(line.lstrip(" ")) for line in self.lines if line.startswith(" ") and line.strip()]
        return next((unit for unit in (4, 2, 3) if sum(step % unit == 0 for step in steps) > 0.9 * len(steps)), 1)


def _places(source: Source, hunk: Hunk) -> list[Place]:
    """Every place that the first successful step finds."""
    verbatim = source.index()[1]
    if not hunk.exact and any(line.sign != " " and line.raw.rstrip() in verbatim for line in hunk.lines):
        return []  # either a changed line, or a line of the file that begins with a sign
    if places := list(_matches(source, hunk)):
        return [replace(place, exact=True) for place in places]
    corrected = list(_corrections(hunk))
    steps = [  # reading of the hunk, loose, dense
        *((reading, False, False) for reading in corrected),
        *((reading, False, True) for reading in [hunk, *corrected]),
        (hunk, True, False),
        (hunk, True, True),
    ]
    return next((places for step in steps if (places := list(_matches(source, *step)))), [])


def _corrections(hunk: Hunk) -> Iterator[Hunk]:
    """The hunk after the correction of each common mistake."""
    lines = hunk.lines
    blank = [line.sign == " " and not line.raw for line in lines]
    for least in () if hunk.exact else (2, 1):  # number of sides of the blank line on which lines are added
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
    if unmarked != lines and not _all_off_by_one(lines):
        yield replace(hunk, lines=unmarked, exact=False)


def _all_off_by_one(lines: Sequence[Line]) -> bool:
    """Whether all lines may lack one column, rather than context lines their marker."""
    if any(line.sign == "-" or (line.sign == " " and line.raw[:1] not in ("", " ")) for line in lines):
        return False
    added = [line.text for line in lines if line.sign == "+" and line.text.strip()]
    return all((len(text) - len(text.lstrip())) % 4 == 3 for text in added)


def _matches(source: Source, hunk: Hunk, loose: bool = False, dense: bool = False) -> Iterator[Place]:
    """Places where the old lines match; ``dense``: where blank context lines differ harmlessly."""
    old = hunk.old
    if not old and not source.lines and not dense:
        yield Place(0, 0, hunk.lines)
    if dense and (hunk.claimed or 0) > hunk.growth and not all(line.raw for line in hunk.lines):
        return  # a blank line without a marker may be an added line
    for first in source.find(old, loose, dense):
        aligned = _aligned(source, hunk, first) if dense else (hunk, range(first, first + len(old)))
        if aligned and (place := _filled(source, *aligned, loose)):
            yield place


def _aligned(source: Source, hunk: Hunk, first: int) -> tuple[Hunk, range] | None:
    """``hunk`` with the blank lines of the file, and the lines it covers; None if a blank line matters.

    ``first`` is where its old lines with text begin among those of the file; the lines between them are blank.
    """
    gaps: list[list[Line]] = [[]]  # added and blank lines around each old line with text
    firm: list[Line] = []
    for line in hunk.lines:
        if line.sign == "+" or not line.text.strip():
            gaps[-1].append(line)
        else:
            firm.append(line)
            gaps.append([])
    numbers = source.full[first : first + len(firm)]
    for side in (0, -1):
        if not any(line.raw for line in gaps[side]):
            gaps[side] = []  # blank lines around the hunk are layout of the reply
    covered = [sum(line.sign != "+" for line in gap) for gap in (gaps[0], gaps[-1])]
    begin, end = numbers[0] - covered[0], numbers[-1] + 1 + covered[1]
    ends = source.tight[max(begin, 0) : numbers[0]] + source.tight[numbers[-1] + 1 : end]
    if any(ends) or len(ends) != sum(covered):
        return None
    lines = [*gaps[0], firm[0]]
    for gap, (one, other), (before, after) in zip(gaps[1:], pairwise(firm), pairwise(numbers), strict=False):
        blank, quoted = after - before - 1, sum(line.sign != "+" for line in gap)
        if quoted != blank:
            if quoted > blank and any(not line.raw for line in gap):
                return None  # a blank line without a marker may be an added line
            if "".join(line.sign for line in (one, *gap, other)).strip():
                return None
            gap = [Line(" ", "", "")] * blank
        lines += [*gap, other]
    return replace(hunk, lines=(*lines, *gaps[-1]), exact=False), range(begin, end)


def _filled(source: Source, hunk: Hunk, numbers: range, loose: bool) -> Place | None:
    """The place with its new lines; None if no single reindentation explains the old lines."""
    lines: Sequence[Line] = hunk.lines
    if loose:
        quoted = [(line.sign, line.text, source.lines[at]) for line, at in zip(hunk.old, numbers, strict=True)]
        moved = reindented(quoted, [line.text for line in lines if line.sign == "+"], source.unit)
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
    return Place(numbers.start, numbers.stop, tuple(new), reindented=loose)


def _split_at_dots(source: Source, hunk: Hunk) -> list[Hunk]:
    """The parts of the hunk around its lines of dots, or the whole hunk if it has a place or a part has none."""
    dots = [at for at, line in enumerate(hunk.lines) if line.sign == " " and _DOTS.fullmatch(line.text)]
    if not dots or _places(source, hunk):
        return [hunk]
    parts: list[Hunk] = []
    begin = 0
    for at in [*dots, len(hunk.lines)]:
        lines = hunk.lines[begin:at]
        while lines and lines[0].sign == " " and not lines[0].text.strip():
            lines = lines[1:]
        while lines and lines[-1].sign == " " and not lines[-1].text.strip():
            lines = lines[:-1]
        if lines:
            parts.append(replace(hunk, lines=lines, exact=False))
        begin = at + 1
    return [hunk] if any(not part.old for part in parts) else parts
