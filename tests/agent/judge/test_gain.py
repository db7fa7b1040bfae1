"""The gain between two commits, compared within each type of device."""

from __future__ import annotations

import pytest

from agent.judge.gain import Gain, gain_of, gain_of_runs
from agent.judge.noise import Noise
from agent.types import Measurement, Role

NOISE = Noise(1.0, 8)


def runs(device_type: str, *values: float | None, role: Role = "confirm") -> tuple[Measurement, ...]:
    return tuple(
        Measurement("c", role, 0, "cuda", "ok" if value is not None else "crash", value, device_type=device_type)
        for value in values
    )


@pytest.mark.parametrize(("goal", "gain"), [("minimize", 2.0), ("maximize", -2.0)])
def test_gain_is_positive_when_better(goal: str, gain: float) -> None:
    assert gain_of([5.0, 5.0], [3.0], goal, NOISE) == Gain(gain, pytest.approx(1.5**0.5), 1, 2)


def test_gain_without_values_is_none() -> None:
    assert gain_of([], [3.0], "minimize", NOISE) is None
    assert gain_of_runs(runs("H100", None), runs("H100", 3.0), "minimize", NOISE) is None


def test_gain_ignores_devices_of_one_side() -> None:
    before = (*runs("H100", 5.0, 5.0), *runs("A100", 9.0))
    found = gain_of_runs(before, runs("H100", 4.0, 4.0), "minimize", NOISE)
    assert found == Gain(1.0, 1.0, 2, 2)


def test_gain_averages_over_shared_devices() -> None:
    before = (*runs("H100", 5.0, 5.0), *runs("A100", 9.0))
    after = (*runs("H100", 4.0, 4.0), *runs("A100", 6.0), *runs("A100", 1.0, role="test"))
    found = gain_of_runs(before, after, "minimize", NOISE)
    assert found == Gain(2.0, pytest.approx((1 + 2) ** 0.5 / 2), 3, 3)


def test_gain_pools_runs_without_shared_device() -> None:
    assert gain_of_runs(runs("", 5.0), runs("cpu", 3.0), "minimize", NOISE) == Gain(2.0, pytest.approx(2**0.5), 1, 1)
