"""Three-way merges and their conflicts."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agent.patch.merge3 import merge

BASE = "A = 1\nB = 2\nC = 3\n"
texts = st.lists(st.sampled_from(["a\n", "b\n", "c\n", "d\n", "\n"]), max_size=12).map("".join)


@given(texts, texts)
def test_unchanged_side_keeps_the_other(base: str, changed: str) -> None:
    assert merge(base, changed, base) == changed
    assert merge(base, base, changed) == changed


@given(texts, texts)
def test_equal_sides_merge(base: str, changed: str) -> None:
    assert merge(base, changed, changed) == changed


@given(texts, texts, texts)
def test_merge_is_symmetric(base: str, ours: str, theirs: str) -> None:
    assert merge(base, ours, theirs) == merge(base, theirs, ours)


def test_adjacent_edits_merge() -> None:
    assert merge(BASE, BASE.replace("1", "9"), BASE.replace("2", "8")) == "A = 9\nB = 8\nC = 3\n"
    assert merge(BASE, "A = 9\nB = 8\nC = 3\n", BASE.replace("3", "7")) == "A = 9\nB = 8\nC = 7\n"


def test_two_edits_of_one_line_conflict() -> None:
    assert merge(BASE, BASE.replace("2", "8"), BASE.replace("2", "7")) is None


def test_edit_and_deletion_conflict() -> None:
    assert merge(BASE, BASE.replace("2", "8"), "A = 1\nC = 3\n") is None


def test_insertions_at_one_place_conflict() -> None:
    assert merge(BASE, BASE + "D = 4\n", BASE + "E = 5\n") is None
    assert merge(BASE, "Z = 0\n" + BASE, BASE + "E = 5\n") == "Z = 0\n" + BASE + "E = 5\n"


def test_only_newline_ends_a_line() -> None:
    base = "A = 'x\u2028y\x0cz'\nB = 2\n"
    assert merge(base, base.replace("y", "w"), base.replace("x", "v")) is None
    assert merge(base, base.replace("y", "w"), base.replace("2", "3")) == "A = 'x\u2028w\x0cz'\nB = 3\n"
