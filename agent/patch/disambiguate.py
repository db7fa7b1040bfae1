"""Chooses among the places that the hunks of one diff may have: what the text leaves open, and what may decide it.

Used by ``agent.patch.locate``, which says what the rules are.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

from agent.errors import PatchRejected
from agent.patch.parse import Hunk, Line

MAX_RESULTS = 32  # ways to place a diff that are compared before it is called ambiguous
_SCOPE = re.compile(r"^\s*(?:class|def|async\s+def)\b|^[A-Za-z_]")


class NotPlaced(PatchRejected):
    """Hunk number ``hunk`` (from 0) has no place, or the places ``at`` (from 0) and nothing that decides."""

    def __init__(self, reason: str, hunk: int, at: Sequence[int] = ()) -> None:
        super().__init__(reason)
        self.hunk, self.at = hunk, tuple(at)


@dataclass(frozen=True)
class Place:
    """One place for one hunk. ``new`` replaces lines ``start:end``: a number is a line kept, a Line is added."""

    start: int
    end: int
    new: tuple[int | Line, ...]
    strict: bool = False  # the old lines stand there as they are, but for white space at their ends
    loose: bool = False  # they are indented differently

    @cached_property
    def span(self) -> tuple[int, int]:
        """First line changed and the line after the last one; equal for a pure insertion."""
        first, last, new = self.start, self.end, self.new
        low, high = 0, len(new)
        while low < high and new[low] == first:
            low, first = low + 1, first + 1
        while high > low and last > first and new[high - 1] == last - 1:
            high, last = high - 1, last - 1
        return first, last


Result = tuple[Place, ...]


def splice(begin: int, end: int, places: Iterable[Place]) -> list[int | Line]:
    """Lines ``begin:end`` of the file after the edit: numbers of kept lines, and added lines.

    All changes of ``places`` lie within, apart from each other.
    """
    out: list[int | Line] = []
    at = begin
    for spot in sorted(places, key=lambda spot: spot.span):
        first, last = spot.span
        out += range(at, first)
        out += spot.new[first - spot.start : len(spot.new) - (spot.end - last)]
        at = last
    return [*out, *range(at, end)]


def choose(lines: Sequence[str], parts: list[tuple[int, Hunk]], found: list[list[Place]]) -> Result:
    """One of the places ``found`` for each of ``parts`` (number of the hunk, hunk). Raises NotPlaced."""
    return _Choice(lines, parts, found).result()


class _Choice:
    """Chooses among the places of all hunks of one diff."""

    def __init__(self, lines: Sequence[str], parts: list[tuple[int, Hunk]], found: list[list[Place]]) -> None:
        self.lines, self.parts, self.found = lines, parts, found

    def result(self) -> Result:
        if all(len(places) == 1 for places in self.found):
            alone = tuple(places[0] for places in self.found)
            if not self._apart(alone):
                raise NotPlaced("it changes lines that another hunk changes too", self.parts[-1][0])
            return alone
        ordered = self._ordered()
        viable = self._viable() if ordered else self.found
        many = next(at for at, places in enumerate(self.found) if len(places) > 1)
        if not all(viable):
            raise NotPlaced("the hunks fit only out of order", self.parts[many][0])
        decided = (self._by_text(viable) if ordered else None) or self._by_number(viable) or self._by_section(viable)
        if decided is None:
            many = next((at for at, places in enumerate(viable) if len(places) > 1), many)
            starts = [spot.start for spot in viable[many]]
            raise NotPlaced(f"its lines fit in {len(starts)} places and nothing decides", self.parts[many][0], starts)
        return decided

    @staticmethod
    def _apart(result: Sequence[Place]) -> bool:
        spans = sorted(spot.span for spot in result)
        return all(_before(one, other) for one, other in pairwise(spans))

    def _ordered(self) -> bool:
        """Whether the claimed numbers let us believe that the hunks stand in the order of the file."""
        starts = [hunk.start for _, hunk in self.parts if hunk.start is not None]
        return starts == sorted(starts)

    def _viable(self) -> list[list[Place]]:
        """Places that are part of at least one result in order."""
        forward: list[list[Place]] = []
        reach = (-1, -1)
        for places in self.found:
            kept = [spot for spot in places if _before(reach, spot.span)]
            forward.append(kept)
            reach = min((spot.span for spot in kept), key=lambda span: (span[1], span[0]), default=reach)
        backward: list[list[Place]] = []
        limit = (len(self.lines) + 1,) * 2
        for places in reversed(forward):
            kept = [spot for spot in places if _before(spot.span, limit)]
            backward.append(kept)
            limit = max((spot.span for spot in kept), default=limit)
        return backward[::-1]

    def _by_text(self, viable: list[list[Place]]) -> Result | None:
        """The first result in order, if all of them give the same text."""
        results = self._results(viable)
        if not results or len(results) > MAX_RESULTS:
            return None
        begin = min(spot.span[0] for result in results for spot in result)
        end = max(spot.span[1] for result in results for spot in result)
        lines = self.lines
        texts = {
            tuple(lines[item] if isinstance(item, int) else item.text for item in splice(begin, end, result))
            for result in results
        }
        return results[0] if len(texts) == 1 else None

    @staticmethod
    def _results(viable: list[list[Place]]) -> list[Result]:
        """All ways to place the hunks in order and apart; more than MAX_RESULTS if there are too many to look at."""
        results: list[Result] = [()]
        for places in viable:
            pairs = ((sofar, spot) for sofar in results for spot in places)
            results = [(*sofar, spot) for sofar, spot in pairs if not sofar or _before(sofar[-1].span, spot.span)]
            if len(results) > MAX_RESULTS:
                break
        return results

    def _by_number(self, viable: list[list[Place]]) -> Result | None:
        """The result in which every hunk stands exactly at its number, if the numbers are believable."""
        chosen: list[Place] = []
        growth = 0
        witness = any(len(places) == 1 for places in viable)  # its number is right, as the loop makes sure
        for (_, hunk), places in zip(self.parts, viable, strict=True):
            if not hunk.exact or hunk.start is None or hunk.new_start is None:
                return None
            old = sum(line.sign != "+" for line in hunk.lines)
            start = hunk.start - (old > 0)
            new = hunk.new_start - (old + hunk.growth > 0)
            spot = next((spot for spot in places if spot.start == start and spot.strict), None)
            if spot is None or new - start != growth or not self._in_section(spot, hunk.section, nearest=False):
                return None
            if len(places) > 2 and not witness and not self._full_context(spot, hunk):
                return None  # with many places, a wrong number soon hits one of them by chance
            growth += hunk.growth
            chosen.append(spot)
        return tuple(chosen) if self._apart(chosen) else None

    def _full_context(self, spot: Place, hunk: Hunk) -> bool:
        """Whether the hunk has three lines of context on both sides, as programs write it, but for the file's ends."""
        context = "".join(line.sign for line in hunk.lines)
        lead, trail = (len(context) - len(rest) for rest in (context.lstrip(), context.rstrip()))
        return (lead >= 3 or spot.start == 0) and (trail >= 3 or spot.end == len(self.lines))

    def _by_section(self, viable: list[list[Place]]) -> Result | None:
        narrowed = [
            [spot for spot in places if len(places) == 1 or (hunk.section and self._in_section(spot, hunk.section))]
            for (_, hunk), places in zip(self.parts, viable, strict=True)
        ]
        if not all(len(places) == 1 for places in narrowed):
            return None
        chosen = tuple(places[0] for places in narrowed)
        return chosen if self._apart(chosen) else None

    def _in_section(self, spot: Place, section: str, nearest: bool = True) -> bool:
        """Whether the heading stands above the place; ``nearest``: as a scope around it, or the last one before it."""
        wanted = section.strip().rstrip(":")
        if not wanted:
            return True
        lines = self.lines
        inside: int | None = None
        first = True
        for number in range(min(spot.span[0], len(lines)) - 1, -1, -1):
            line = lines[number]
            if not line.strip() or not _SCOPE.match(line):
                continue
            depth = len(line) - len(line.lstrip())
            if not nearest or first or inside is None or depth < inside:
                if line.strip().startswith(wanted):
                    return True
                first = False
                inside = depth if inside is None else min(inside, depth)
        return False


def _before(one: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether span ``one`` ends where ``other`` begins, or before; two insertions at one point have no order."""
    return one[1] <= other[0] and (one != other or one[0] != one[1])
