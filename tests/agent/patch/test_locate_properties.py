"""Placing of hunks: correct diffs apply exactly, and malformed diffs apply correctly or raise."""

from __future__ import annotations

import contextlib
import difflib
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.patch.blocks import hunk_between
from agent.patch.disambiguate import NotPlaced, splice
from agent.patch.locate import locate
from agent.patch.parse import Hunk, Line, read_diffs

# Few distinct lines, so that most places are ambiguous, and lines that look like diff syntax.
LINES = ["a", "b",
         "    a", "        a", "", "  ", "\tb", "...", "# ...", "-a", "+a", "-- a", "++ a", "@@", "@@ -1 +1 @@",
         "```", "diff --git a b", "\\ No newline", "x = 1", "x = 1  ", "<think", "*** End Patch", "1. a"]  # fmt: skip
files = st.lists(st.sampled_from(LINES), max_size=30)
small = st.lists(st.sampled_from(["a", "b", "c", ""]), max_size=24)


def diff(before: list[str], after: list[str], context: int = 3) -> str:
    return "\n".join(difflib.unified_diff(before, after, "a/f", "b/f", lineterm="", n=context)) + "\n"


def place(lines: list[str], hunks: list[Hunk]) -> list[str | Line]:
    """The lines after the edit; an added line is a Line."""
    items = splice(0, len(lines), locate(lines, hunks))
    return [lines[item] if isinstance(item, int) else item for item in items]


def placed(before: list[str], reply: str) -> list[str]:
    found = read_diffs(reply)
    assert len(found) <= 1
    return [line.text if isinstance(line, Line) else line for line in place(before, found[0].hunks if found else [])]


@settings(max_examples=400)
@given(files, files)
def test_correct_diff_gives_the_edited_file(before: list[str], after: list[str]) -> None:
    if before != after:
        assert placed(before, diff(before, after)) == after


@settings(max_examples=400)
@given(small, small)
def test_fenced_correct_diff_gives_the_edited_file(before: list[str], after: list[str]) -> None:
    if before != after:
        assert placed(before, f"Here:\n```diff\n{diff(before, after)}```\n- done\n") == after


def unique(before: list[str], hunk: Hunk) -> bool:
    old = [line.text for line in hunk.old]
    return bool(old) and sum(before[at : at + len(old)] == old for at in range(len(before) - len(old) + 1)) == 1


@settings(max_examples=400)
@given(small, small, st.integers(0, 3), st.booleans())
def test_hunk_without_numbers_is_placed_by_text(before: list[str], after: list[str], context: int, bare: bool) -> None:
    if before == after:
        return
    header = "@@" if bare else "@@ ... @@"
    lines = [header if line.startswith("@@") else line for line in diff(before, after, context).split("\n")[:-1]]
    reply = "```diff\n" + "\n".join(lines) + "\n```\n"
    hunks = read_diffs(reply)[0].hunks
    try:
        result = placed(before, reply)
    except NotPlaced:
        assert not all(unique(before, hunk) for hunk in hunks)
        return
    assert result == after or not all(unique(before, hunk) for hunk in hunks)


@settings(max_examples=300)
@given(small, small, st.integers(-9, 9))
def test_shifted_numbers_do_not_move_unique_hunks(before: list[str], after: list[str], by: int) -> None:
    if before == after:
        return
    found = read_diffs(diff(before, after))
    hunks = [
        Hunk(hunk.lines, max(1, (hunk.start or 0) + by), max(1, (hunk.new_start or 0) + by), exact=True)
        for hunk in found[0].hunks
    ]
    if all(unique(before, hunk) for hunk in hunks):
        result = [line.text if isinstance(line, Line) else line for line in place(before, hunks)]
        assert result == after


hunks_of_anything = st.lists(
    st.builds(
        Hunk,
        st.lists(
            st.builds(Line, st.sampled_from(" +-"), st.sampled_from(LINES), st.sampled_from(LINES)), max_size=6
        ).map(tuple),
        st.none() | st.integers(-3, 40),
        st.none() | st.integers(-3, 40),
        st.booleans(),
        st.sampled_from(["", "a", "def f"]),
    ),
    max_size=4,
)


@settings(max_examples=400)
@given(files, hunks_of_anything)
def test_any_hunks_are_disjoint_or_rejected(before: list[str], hunks: list[Hunk]) -> None:
    with contextlib.suppress(NotPlaced):
        places = locate(before, hunks)
        assert all(0 <= spot.start <= spot.end <= len(before) for spot in places)
        spans = sorted(spot.span for spot in places)
        assert all(one[1] <= other[0] for one, other in pairwise(spans))


def hunk(text: str, start: int | None = None, new: int | None = None, exact: bool = False, section: str = "") -> Hunk:
    return Hunk(tuple(Line(line[:1] or " ", line[1:], line) for line in text.split("\n")), start, new, exact, section)


FILE = """\
class A:
    def run(self):
        x = 1
        return x

class B:
    def run(self):
        x = 1
        return x
""".splitlines()
EDIT = "         x = 1\n-        return x\n+        return 2"


def test_number_decides_only_if_consistent() -> None:
    assert locate(FILE, [hunk(EDIT, 8, 8, exact=True)])[0].start == 7
    for start, new, exact in ((8, 8, False), (7, 7, True), (8, 9, True), (None, None, False)):
        with pytest.raises(NotPlaced) as problem:
            locate(FILE, [hunk(EDIT, start, new, exact)])
        assert problem.value.at == (2, 7)


def test_section_decides_without_numbers() -> None:
    assert locate(FILE, [hunk(EDIT, section="class B:")])[0].start == 7
    with pytest.raises(NotPlaced):
        locate(FILE, [hunk(EDIT, section="def run(self):")])
    with pytest.raises(NotPlaced):
        locate(FILE, [hunk(EDIT, 8, 8, exact=True, section="class C")])


def test_order_of_hunks_decides() -> None:
    first = hunk(" class B:\n-    def run(self):\n+    def go(self):")
    assert [spot.start for spot in locate(FILE, [first, hunk(EDIT)])] == [5, 7]
    assert [spot.start for spot in locate(FILE, [hunk(EDIT), first])] == [2, 5]
    # Falling numbers: the hunks are not in the order of the file.
    with pytest.raises(NotPlaced):
        locate(FILE, [hunk(EDIT, 8), hunk(" class B:\n-    def run(self):\n+    def go(self):", 6)])


def test_identical_results_are_unambiguous() -> None:
    before = ["a", "", "", "", "b"]
    assert [str(line) for line in place(before, [hunk("-")])] == ["a", "", "", "b"]


def test_context_is_never_dropped() -> None:
    with pytest.raises(NotPlaced):
        locate(FILE, [hunk("     def run(other):\n         x = 1\n-        return x\n+        return 2", 7, 7)])


def test_insertion_without_context_is_rejected() -> None:
    with pytest.raises(NotPlaced):
        locate(FILE, [hunk("+import os", 1, 1, exact=True)])
    assert place([], [hunk("+import os")])[0] == Line("+", "import os", "+import os")


def test_reindented_hunk_makes_exact_places_ambiguous() -> None:
    before = ["try:", "    a = 1", "def f():", "    try:", "        b = 2", "        d = 4"]
    slipped = hunk("     d = 4\n+    c = 3")
    assert locate(before, [hunk(" try:\n+    x = 1")])[0].start == 0
    with pytest.raises(NotPlaced):
        locate(before, [hunk(" try:\n+    x = 1"), slipped])


def test_marked_blank_context_is_never_dropped() -> None:
    with pytest.raises(NotPlaced):
        locate(["a", "b"], [hunk(" a\n-b\n+c\n ")])
    assert [str(line) for line in place(["a", "", "b", "c"], [hunk(" a\n b\n-c")])] == ["a", "", "b"]


def test_blank_line_between_added_lines_is_added() -> None:
    result = place(["a", "b"], [hunk(" a\n+x\n\n+y\n b")])
    assert [line if isinstance(line, str) else line.text for line in result] == ["a", "x", "", "y", "b"]


def test_block_with_a_twin_of_other_blank_lines_is_rejected() -> None:
    before = ["x = 1", "", "y = 2", "z = 3", "x = 1", "y = 2", "z = 4"]
    with pytest.raises(NotPlaced) as problem:
        locate(before, [hunk_between(["x = 1", "y = 2"], ["x = 1", "y = 5"])])
    assert problem.value.at == (0, 4)
