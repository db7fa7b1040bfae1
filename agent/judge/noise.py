"""The noise between training runs of one commit, and the standard error of a gain that follows from it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from statistics import NormalDist, fmean, stdev

from agent.ledger.state import State
from agent.types import Measurement, Record


@dataclass(frozen=True)
class Noise:
    """Pooled standard deviation between runs of one commit on one type of device."""

    sd: float | None  # in units of the metric; None until some commit has two values
    dof: int  # degrees of freedom of ``sd``


def noise_of(state: State, device_type: str = "") -> Noise:
    """Return the noise of a session, pooled over commits and types of device.

    Args:
        device_type: Count only runs on this type of device; "" counts all types, each pooled by itself.
    """
    runs = (run for found in state.runs.values() for run in found if run.on(device_type))
    return pooled_noise(repeated_values(runs))


def repeated_values(runs: Iterable[Measurement]) -> list[list[float]]:
    """Group values on the validation split by commit and type of device: values of one group differ by noise only."""
    groups: dict[tuple[str, str], list[float]] = {}
    for run in runs:
        if run.value is not None and run.role != "test":
            groups.setdefault((run.commit, run.device_type), []).append(run.value)
    return list(groups.values())


def pooled_noise(groups: Iterable[Sequence[float]]) -> Noise:
    """Return the pooled standard deviation: sqrt(sum of squared deviations from group means / degrees of freedom)."""
    squares, dof = 0.0, 0
    for group in groups:
        if len(group) > 1:
            mean = fmean(group)
            squares += math.fsum((x - mean) ** 2 for x in group)
            dof += len(group) - 1
    return Noise(math.sqrt(squares / dof), dof) if dof else Noise(None, 0)


def calibrated(runs: Sequence[tuple[int, float]]) -> tuple[list[float], float]:
    """Return the values of (seed, value) and their standard deviation. Raises ValueError if it is 0 or unknown."""
    values = [value for _, value in runs]
    spread = stdev(values) if len(values) > 1 else 0.0
    if not spread > 0:
        raise ValueError("the noise cannot be estimated: fewer than two calibration runs, or all of them equal")
    return values, spread


def standard_error(noise: Noise, n: int, m: int) -> float | None:
    """Return the standard error of a gain: the difference between means of ``n`` and ``m`` runs.

    None while the noise is unknown or one side has no runs.
    """
    return None if noise.sd is None or not n or not m else noise.sd * math.sqrt(1 / n + 1 / m)


def device_type_of(record: Record) -> str:
    """Return the type of device of a trial's runs; "" before the first run.

    All runs of a trial use one device type: a time budget buys more training on faster hardware.
    """
    return record.runs[0].device_type if record.runs else ""


@cache
def t_quantile(p: float, dof: int) -> float:
    """Return the quantile of Student's t distribution, by bisection of ``t_cdf`` (error below 1e-9).

    Above 200 degrees of freedom: the normal quantile with the first term of the Cornish-Fisher expansion.

    Args:
        p: Probability, 0.5 <= p < 1.

    Raises:
        ValueError: ``p`` or ``dof`` is outside its range.
    """
    if not 0.5 <= p < 1 or dof < 1:
        raise ValueError(f"t quantile of p = {p} with {dof} degrees of freedom")
    if dof > 200:
        z = NormalDist().inv_cdf(p)
        return z + (z**3 + z) / (4 * dof)
    low, high = 0.0, 1.0
    while t_cdf(high, dof) < p:
        high *= 2
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if t_cdf(middle, dof) < p else (low, middle)
    return (low + high) / 2


def t_cdf(t: float, dof: int) -> float:
    """Return the distribution function of Student's t for t >= 0 and a whole number of degrees of freedom.

    Source: Abramowitz and Stegun, Handbook of Mathematical Functions, equations 26.7.3 and 26.7.4.
    """
    odd = dof % 2
    angle = math.atan2(t, math.sqrt(dof))
    cosine = math.cos(angle)
    term, total = (cosine if odd else 1.0), 0.0
    for k in range(1, (dof - odd) // 2 + 1):
        total += term
        term *= cosine * cosine * (2 * k - 1 + odd) / (2 * k + odd)
    area = math.sin(angle) * total
    return 0.5 + ((angle + area) / math.pi if odd else area / 2)
