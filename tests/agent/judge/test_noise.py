"""Noise: pooling, quantiles of Student's t against printed tables, and detection of drift."""

from __future__ import annotations

import math

import pytest

from agent.judge.noise import Noise, noise_of, pooled_noise, standard_error, t_cdf, t_quantile
from agent.ledger.state import State
from agent.types import Measurement, Role


def test_single_values_give_no_noise() -> None:
    assert pooled_noise([[1.0], [2.0], []]) == Noise(None, 0)


def test_noise_is_pooled_about_group_means() -> None:
    noise = pooled_noise([[1.0, 3.0], [10.0, 11.0, 12.0], [7.0]])
    assert noise.dof == 3
    assert noise.sd == pytest.approx(math.sqrt((2 + 2) / 3))


def test_equal_values_have_zero_noise() -> None:
    assert pooled_noise([[1.25] * 4]) == Noise(0.0, 3)


def test_noise_is_pooled_per_device_type() -> None:
    def run(value: float, device_type: str, role: Role = "calibrate") -> Measurement:
        return Measurement("c", role, 0, "cuda", "ok", value, device_type=device_type)

    fast, slow = [1.0000, 1.0004], [1.0533, 1.0537]
    runs = (*(run(v, "H100") for v in fast), *(run(v, "A100") for v in slow), run(9.0, "H100", "test"))
    state = State(runs={"c": runs})
    assert noise_of(state).dof == 2
    assert noise_of(state).sd == pytest.approx(0.00028, abs=1e-5)
    assert noise_of(state, "H100") == pooled_noise([fast])


def test_standard_error_of_a_gain() -> None:
    assert standard_error(Noise(3.0, 5), 1, 1) == pytest.approx(3 * math.sqrt(2))
    assert standard_error(Noise(None, 0), 1, 1) is None
    assert standard_error(Noise(3.0, 5), 0, 4) is None


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
def test_t_quantile_agrees_with_table(p: float, dof: int, table: float) -> None:
    assert t_quantile(p, dof) == pytest.approx(table, abs=1e-4)


@pytest.mark.parametrize("dof", [1, 2, 3, 8, 51, 200])
def test_t_quantile_inverts_cdf(dof: int) -> None:
    for p in (0.5, 0.7, 0.95, 0.999):
        assert t_cdf(t_quantile(p, dof), dof) == pytest.approx(p, abs=1e-9)


@pytest.mark.parametrize(("p", "dof"), [(0.3, 4), (1.0, 4), (0.95, 0)])
def test_t_quantile_rejects_arguments_out_of_range(p: float, dof: int) -> None:
    with pytest.raises(ValueError, match="t quantile"):
        t_quantile(p, dof)
