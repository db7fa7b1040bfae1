"""Resolves ambiguous hunks. Tie-breakers, in order: identical result, header line numbers, section heading."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

from agent.errors import PatchRejected
from agent.patch.parse import Hunk, Line

MAX_COMBINATIONS = 32  # of places that are compared; with more, the text counts as ambiguous
_SCOPE = re.compile(r"^\s*(?:class|def|async\s+def)\b|^[A-Za-z_]")


class NotPlaced(PatchRejected):
    """Hunk number ``hunk`` (from 0) fits nowhere, or at several lines ``at`` (from 0) without a tie-breaker."""

    def __init__(self, reason: str, hunk: int, at: Sequence[int] = ()) -> None:
        super().__init__(reason)
        self.hunk, self.at = hunk, tuple(at)


@dataclass(frozen=True)
class Place:
    """One place for one hunk. ``new`` replaces lines ``start:end``: an int is a kept line, a Line is an added one."""

    start: int
    end: int
    new: tuple[int | Line, ...]
    exact: bool = False  # the old lines match the file but for trailing white space
    reindented: bool = False  # the old lines match the file after reindentation

    @cached_property
    def span(self) -> tuple[int, int]:
        """First changed line, and the line after the last one; equal for a pure insertion."""
        first, last, new = self.start, self.end, self.new
        low, high = 0, len(new)
        while low < high and new[low] == first:
            low, first = low + 1, first + 1
        while high > low and last > first and new[high - 1] == last - 1:
            high, last = high - 1, last - 1
        return first, last


Places = tuple[Place, ...]  # one for each hunk


def splice(begin: int, end: int, places: Iterable[Place]) -> list[int | Line]:
    """Lines ``begin:end`` of the file after the edit. All changes lie within ``begin:end`` and do not overlap."""
    out: list[int | Line] = []
    at = begin
    for place in sorted(places, key=lambda place: place.span):
        first, last = place.span
        out += range(at, first)
        out += place.new[first - place.start : len(place.new) - (place.end - last)]
        at = last
    return [*out, *range(at, end)]


def resolve(lines: Sequence[str], hunks: Sequence[tuple[int, Hunk]], candidates: list[list[Place]]) -> Places:
    """One of the ``candidates`` for each of the ``hunks``, which come with their numbers. Raises NotPlaced."""
    if all(len(places) == 1 for places in candidates):
        only = tuple(places[0] for places in candidates)
        if not disjoint(only):
            raise NotPlaced("it changes lines that another hunk changes too", hunks[-1][0])
        return only
    starts = [hunk.start for _, hunk in hunks if hunk.start is not None]
    ordered = starts == sorted(starts)  # else the hunks may be in another order than the file
    viable = _in_order(candidates, len(lines)) if ordered else candidates
    ambiguous = next(at for at, places in enumerate(candidates) if len(places) > 1)
    if not all(viable):
        raise NotPlaced("the hunks fit only out of order", hunks[ambiguous][0])
    found = (
        (_by_identical_result(lines, viable) if ordered else None)
        or _by_line_numbers(lines, hunks, viable)
        or _by_section(lines, hunks, viable)
    )
    if found is None:
        ambiguous = next((at for at, places in enumerate(viable) if len(places) > 1), ambiguous)
        at = [place.start for place in viable[ambiguous]]
        raise NotPlaced(f"its lines fit in {len(at)} places and nothing decides", hunks[ambiguous][0], at)
    return found


def _before(one: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether span ``one`` ends before span ``other`` begins; two insertions at one line have no order."""
    return one[1] <= other[0] and (one != other or one[0] != one[1])


def disjoint(places: Iterable[Place]) -> bool:
    """Whether no two places change the same lines."""
    return all(_before(one, other) for one, other in pairwise(sorted(place.span for place in places)))


def _in_order(candidates: list[list[Place]], count: int) -> list[list[Place]]:
    """The candidates that are part of at least one combination in the order of the file of ``count`` lines."""
    forward: list[list[Place]] = []
    reach = (-1, -1)
    for places in candidates:
        forward.append([place for place in places if _before(reach, place.span)])
        reach = min((place.span for place in forward[-1]), key=lambda span: (span[1], span[0]), default=reach)
    backward: list[list[Place]] = []
    limit = (count + 1, count + 1)
    for places in reversed(forward):
        backward.append([place for place in places if _before(place.span, limit)])
        limit = max((place.span for place in backward[-1]), default=limit)
    return backward[::-1]


def _by_identical_result(lines: Sequence[str], candidates: list[list[Place]]) -> Places | None:
    """The first combination in order, if all combinations give the same text."""
    combinations: list[Places] = [()]
    for places in candidates:
        pairs = ((sofar, place) for sofar in combinations for place in places)
        combinations = [(*sofar, p) for sofar, p in pairs if not sofar or _before(sofar[-1].span, p.span)]
        if not combinations or len(combinations) > MAX_COMBINATIONS:
            return None
    begin = min(place.span[0] for places in combinations for place in places)
    end = max(place.span[1] for places in combinations for place in places)
    texts = {
        tuple(lines[item] if isinstance(item, int) else item.text for item in splice(begin, end, places))
        for places in combinations
    }
    return combinations[0] if len(texts) == 1 else None


def _by_line_numbers(
    lines: Sequence[str], hunks: Sequence[tuple[int, Hunk]], candidates: list[list[Place]]
) -> Places | None:
    """The places at the line numbers of the headers, if all headers are consistent with the text and each other."""
    chosen: list[Place] = []
    growth = 0
    confirmed = any(len(places) == 1 for places in candidates)  # a hunk with one place confirms the other numbers
    for (_, hunk), places in zip(hunks, candidates, strict=True):
        if not hunk.exact or hunk.start is None or hunk.new_start is None:
            return None
        old = sum(line.sign != "+" for line in hunk.lines)
        start = hunk.start - (old > 0)
        new = hunk.new_start - (old + hunk.growth > 0)
        place = next((place for place in places if place.start == start and place.exact), None)
        if place is None or new - start != growth or not _in_section(lines, place, hunk.section, nearest=False):
            return None
        if len(places) > 2 and not confirmed:  # a wrong number easily matches one of many places by chance
            signs = "".join(line.sign for line in hunk.lines)
            lead, trail = (len(signs) - len(rest) for rest in (signs.lstrip(), signs.rstrip()))
            if not ((lead >= 3 or place.start == 0) and (trail >= 3 or place.end == len(lines))):
                return None  # less context than diff programs write
        growth += hunk.growth
        chosen.append(place)
    return tuple(chosen) if disjoint(chosen) else None


def _by_section(
    lines: Sequence[str], hunks: Sequence[tuple[int, Hunk]], candidates: list[list[Place]]
) -> Places | None:
    """The only places in the sections that the headers name."""
    narrowed = [
        [p for p in places if len(places) == 1 or (hunk.section and _in_section(lines, p, hunk.section))]
        for (_, hunk), places in zip(hunks, candidates, strict=True)
    ]
    if not all(len(places) == 1 for places in narrowed):
        return None
    chosen = tuple(places[0] for places in narrowed)
    return chosen if disjoint(chosen) else None


def _in_section(lines: Sequence[str], place: Place, section: str, nearest: bool = True) -> bool:
    """Whether the heading ``section`` precedes the place; ``nearest``: as an enclosing scope or the last heading."""
    wanted = section.strip().rstrip(":")
    if not wanted:
        return True
    depth_of_scope: int | None = None
    for number in range(min(place.span[0], len(lines)) - 1, -1, -1):
        line = lines[number]
        if not line.strip() or not _SCOPE.match(line):
            continue
        depth = len(line) - len(line.lstrip())
        if not nearest or depth_of_scope is None or depth < depth_of_scope:
            if line.strip().startswith(wanted):
                return True
            depth_of_scope = depth if depth_of_scope is None else min(depth_of_scope, depth)
    return False
