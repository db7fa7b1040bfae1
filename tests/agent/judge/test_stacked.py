"""The sequential test of stacked runs: what a run carries, and when an edit is decided."""

from __future__ import annotations

import random

import numpy as np
import pytest

from agent.judge.stacked import Undecided, choose, decide, new_edits


def test_choose_prefers_the_least_known_edit() -> None:
    matrix = np.diag([0.1, 0.01, 9.0])
    assert choose(matrix, random.Random(1))[1]


@pytest.mark.parametrize(
    ("edit", "probability", "step"),
    [
        (Undecided(1, 0), 0.05, "drop"),
        (Undecided(1, 0), 0.99, "wait"),
        (Undecided(2, 1), 0.85, "nominate"),
        (Undecided(4, 3, (2, 1)), 0.99, "wait"),
        (Undecided(5, 4, (2, 1)), 0.99, "keep"),
        (Undecided(5, 4, (2, 1)), 0.90, "doubt"),
    ],
)
def test_edit_is_kept_after_runs_with_and_without(edit: Undecided, probability: float, step: str) -> None:
    assert decide(edit, probability, 0.15) == step


@pytest.mark.parametrize(("probability", "step"), [(0.99, "keep"), (0.90, "drop")])
def test_last_decision_leaves_nothing_open(probability: float, step: str) -> None:
    assert decide(Undecided(3, 2), probability, 0.15, last=True) == step


def test_nomination_counts_further_runs_from_then_on() -> None:
    edit = Undecided(2, 1).after(True, 0.85, 0.15)
    assert (edit.step, edit.nominated) == ("nominate", (3, 1))
    assert edit.after(False, 0.9, 0.15).nominated == (3, 1)
    doubted = Undecided(5, 3, (2, 1)).after(False, 0.9, 0.15)
    assert (doubted.step, doubted.nominated) == ("doubt", None)


@pytest.mark.parametrize(("undecided", "ruined", "expected"), [(3, 0, 2), (3, 5, 1), (12, 0, 1), (20, 0, 0)], ids=str)
def test_second_new_edit_needs_calm_and_room(undecided: int, ruined: int, expected: int) -> None:
    likely = [Undecided(4, 3, (2, 1))] * 9  # nominated edits do not count
    assert new_edits([Undecided()] * undecided + likely, tried=20, ruined=ruined) == expected
