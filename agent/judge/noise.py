"""How much a measurement of one and the same commit scatters, and how sure that is known."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from statistics import NormalDist, fmean

from agent.ledger.state import State
from agent.types import Record


@dataclass(frozen=True)
class Noise:
    """Pooled standard deviation between runs of one commit. ``sd`` is None while nothing was measured twice."""

    sd: float | None
    dof: int


def pooled_noise(groups: Iterable[Sequence[float]]) -> Noise:
    """Pool the scatter within groups: squares about each group's mean, over their degrees of freedom in all."""
    squares, dof = 0.0, 0
    for group in groups:
        if len(group) > 1:
            mean = fmean(group)
            squares += math.fsum((x - mean) ** 2 for x in group)
            dof += len(group) - 1
    return Noise(math.sqrt(squares / dof), dof) if dof else Noise(None, 0)


def last_shift(values: Sequence[float], noise: Noise, p: float = 0.01) -> int:
    """Where the level of one commit's values last changed: an index, 0 if they are one level.

    Every place is tried; the best must pass a two-sided t test at p over the number of places (Bonferroni).
    """
    if not noise.sd or len(values) < 2:
        return 0
    best, at = 0.0, 0
    for k in range(1, len(values)):
        step = abs(fmean(values[k:]) - fmean(values[:k])) / math.sqrt(1 / k + 1 / (len(values) - k))
        if step > best:
            best, at = step, k
    return at if best > t_quantile(1 - p / 2 / (len(values) - 1), noise.dof) * noise.sd else 0


@cache
def t_quantile(p: float, dof: int) -> float:
    """Quantile of Student's t for 0.5 <= p < 1: found by bisection on the distribution function.

    Exact to 1e-9; for dof above 200 the normal quantile with Fisher's first correction is used.
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
    """Distribution function of Student's t with whole degrees of freedom, t >= 0 (Abramowitz, Stegun 26.7.3-4)."""
    angle = math.atan2(t, math.sqrt(dof))
    sine, cosine = math.sin(angle), math.cos(angle)
    if dof % 2:
        term, total = cosine, 0.0
        for k in range(1, (dof - 1) // 2 + 1):
            total += term
            term *= cosine * cosine * 2 * k / (2 * k + 1)
        area = 2 / math.pi * (angle + sine * total)
    else:
        term, total = 1.0, 0.0
        for k in range(1, dof // 2 + 1):
            total += term
            term *= cosine * cosine * (2 * k - 1) / (2 * k)
        area = sine * total
    return 0.5 + area / 2


def device_type_of(record: Record) -> str:
    """The type of device that a trial has begun on, and stays on: on another, a seconds budget is another budget."""
    return record.runs[0].device_type if record.runs else ""


def noise_of(state: State, device_type: str = "") -> Noise:
    """Pooled over every commit that was measured more than once on one type of device: all of them, or the given."""
    groups: dict[tuple[str, str], list[float]] = {}
    for commit, runs in state.runs.items():
        for run in runs:
            if run.value is not None and run.role != "test" and run.on(device_type):
                groups.setdefault((commit, run.device_type), []).append(run.value)
    return pooled_noise(groups.values())
