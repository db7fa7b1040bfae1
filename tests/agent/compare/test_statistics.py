"""Ranks, means and paired tests of a comparison."""

import json

import pytest

from agent.compare.statistics import Cell, Comparison, band, mean_ranks, pair_tests, rows
from agent.compare.view import comparison_json
from agent.types import Goal


def comparison(finals: dict[str, list[float]], goal: Goal = "minimize") -> Comparison:
    cells = [
        Cell(method, seed, f"{method}-{seed}", True, (1.0, value))
        for method, values in finals.items()
        for seed, value in enumerate(values)
    ]
    return Comparison("val_bpb", goal, tuple(finals), tuple(cells))


def test_signed_rank_test_is_exact_and_paired() -> None:
    six = comparison({"a": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6], "b": [0.11, 0.22, 0.33, 0.44, 0.55, 0.66]})
    (found,) = pair_tests(six)
    assert found.p == pytest.approx(2 / 2**6)
    assert found.p_holm == found.p
    assert found.difference == pytest.approx(-0.035)


@pytest.mark.parametrize(("a", "b"), [([0.1] * 5, [0.2] * 5), ([0.1] * 7, [0.1] * 7)])
def test_few_seeds_and_ties_have_no_p(a: list[float], b: list[float]) -> None:
    (found,) = pair_tests(comparison({"a": a, "b": b}))
    assert found.p is None
    assert found.note


def test_p_is_corrected_for_all_pairs() -> None:
    values = [0.1 + 0.01 * k for k in range(8)]
    three = comparison({"a": values, "b": [v + 0.1 + 0.001 * k for k, v in enumerate(values)], "c": values[::-1]})
    for test in pair_tests(three):
        assert test.p is not None
        assert test.p_holm is not None
        assert test.p <= test.p_holm <= min(1.0, 3 * test.p)


@pytest.mark.parametrize(("goal", "first"), [("minimize", "a"), ("maximize", "b")])
def test_ranks_follow_the_goal(goal: Goal, first: str) -> None:
    found = comparison({"a": [1.0, 2.0], "b": [3.0, 2.0]}, goal)
    assert rows(found)[0].method == first
    assert sorted(mean_ranks(found).values()) == [1.25, 1.75]


def test_only_complete_sessions_count() -> None:
    cells = (Cell("a", 0, "a0", True, (1.0, 0.5)), Cell("a", 1, "a1", False, (1.0, 0.1)), Cell("b", 0, "b0"))
    found = Comparison("val_bpb", "minimize", ("a", "b"), cells)
    table = rows(found)
    assert [(row.method, row.mean, row.sd, row.rank) for row in table] == [
        ("a", 0.5, None, None),
        ("b", None, None, None),
    ]
    assert json.loads(json.dumps(comparison_json(found, "t"), allow_nan=False))["complete"] is False


def test_band_ends_with_shortest_session() -> None:
    cells = [Cell("a", 0, "a0", best=(None, 2.0, 1.0)), Cell("a", 1, "a1", best=(4.0, 4.0))]
    assert band(cells) == [(1, 3.0, pytest.approx(2**0.5))]
