"""Three-way merges: what one side did stays what it did, and contradictions are told."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agent.patch.merge3 import merge

BASE = "A = 1\nB = 2\nC = 3\n"
texts = st.lists(st.sampled_from(["a\n", "b\n", "c\n", "d\n", "\n"]), max_size=12).map("".join)


@given(texts, texts)
def test_a_side_that_changed_nothing_does_not_matter(base: str, changed: str) -> None:
    assert merge(base, changed, base) == changed
    assert merge(base, base, changed) == changed


@given(texts, texts)
def test_both_did_the_same(base: str, changed: str) -> None:
    assert merge(base, changed, changed) == changed


@given(texts, texts, texts)
def test_sides_may_be_swapped(base: str, ours: str, theirs: str) -> None:
    assert merge(base, ours, theirs) == merge(base, theirs, ours)


def test_neighbouring_lines_do_not_contradict_one_another() -> None:
    assert merge(BASE, BASE.replace("1", "9"), BASE.replace("2", "8")) == "A = 9\nB = 8\nC = 3\n"
    assert merge(BASE, "A = 9\nB = 8\nC = 3\n", BASE.replace("3", "7")) == "A = 9\nB = 8\nC = 7\n"


def test_one_line_changed_in_two_ways() -> None:
    assert merge(BASE, BASE.replace("2", "8"), BASE.replace("2", "7")) is None


def test_changed_here_and_removed_there() -> None:
    assert merge(BASE, BASE.replace("2", "8"), "A = 1\nC = 3\n") is None


def test_inserted_at_one_place() -> None:
    assert merge(BASE, BASE + "D = 4\n", BASE + "E = 5\n") is None
    assert merge(BASE, "Z = 0\n" + BASE, BASE + "E = 5\n") == "Z = 0\n" + BASE + "E = 5\n"
