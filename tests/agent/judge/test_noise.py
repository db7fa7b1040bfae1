"""The noise: pooled scatter, Student's quantiles against tabled values, and a shift of level."""

from __future__ import annotations

import math
import random

import pytest

from agent.judge.noise import Noise, last_shift, pooled_noise, t_cdf, t_quantile


def test_groups_of_one_say_nothing_about_noise() -> None:
    assert pooled_noise([[1.0], [2.0], []]) == Noise(None, 0)


def test_scatter_is_pooled_about_each_groups_own_mean() -> None:
    noise = pooled_noise([[1.0, 3.0], [10.0, 11.0, 12.0], [7.0]])
    assert noise.dof == 3
    assert noise.sd == pytest.approx(math.sqrt((2 + 2) / 3))


def test_equal_values_have_no_noise() -> None:
    assert pooled_noise([[1.25] * 4]) == Noise(0.0, 3)


@pytest.mark.parametrize(
    ("p", "dof", "table"),
    [
        (0.95, 1, 6.3138),
        (0.95, 4, 2.1318),
        (0.975, 10, 2.2281),
        (0.99, 5, 3.3649),
        (0.995, 30, 2.7500),
        (0.9, 2, 1.8856),
        (0.975, 1000, 1.9623),
    ],
)
def test_quantiles_agree_with_the_printed_table(p: float, dof: int, table: float) -> None:
    assert t_quantile(p, dof) == pytest.approx(table, abs=1e-4)


@pytest.mark.parametrize("dof", [1, 2, 3, 8, 51, 200])
def test_quantile_inverts_the_distribution_function(dof: int) -> None:
    for p in (0.5, 0.7, 0.95, 0.999):
        assert t_cdf(t_quantile(p, dof), dof) == pytest.approx(p, abs=1e-9)


@pytest.mark.parametrize(("p", "dof"), [(0.3, 4), (1.0, 4), (0.95, 0)])
def test_quantile_outside_its_range_is_an_error(p: float, dof: int) -> None:
    with pytest.raises(ValueError, match="t quantile"):
        t_quantile(p, dof)


def test_a_shift_of_level_is_found_where_it_happened() -> None:
    values = [1.0, 1.1, 0.9, 1.0, 3.0, 3.1, 2.9]
    assert last_shift(values, Noise(0.1, 20)) == 4


@pytest.mark.parametrize("values", [[], [1.0], [1.0, 1.1, 0.9, 1.05]])
def test_one_level_has_no_shift(values: list[float]) -> None:
    assert last_shift(values, Noise(0.1, 20)) == 0
    assert last_shift(values, Noise(None, 0)) == 0
    assert last_shift(values, Noise(0.0, 3)) == 0


def test_false_shifts_are_as_rare_as_promised() -> None:
    rng = random.Random(3)
    found = sum(last_shift([rng.gauss(0, 1) for _ in range(6)], Noise(1.0, 1000)) > 0 for _ in range(4000))
    assert found <= 0.01 * 4000 + 4 * math.sqrt(40)  # p, and four standard deviations of a count of 40
