"""The gain of one commit over another, estimated from their runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from agent.judge.noise import Noise, standard_error
from agent.types import Goal, Measurement, values_of


@dataclass(frozen=True)
class Gain:
    """Difference between the means of two commits; positive is better, whatever the goal."""

    value: float
    se: float | None  # one standard error; None while the noise is unknown
    n: int  # runs of the new commit
    m: int  # runs of the old commit


def difference(before: float, after: float, goal: Goal | str) -> float:
    """Return how much better ``after`` is; negative if it is worse."""
    return after - before if goal == "maximize" else before - after


def added(value: float, gain: float, goal: Goal | str) -> float:
    """Return the value that is better than ``value`` by ``gain``."""
    return value + gain if goal == "maximize" else value - gain


def gain_of(before: Sequence[float], after: Sequence[float], goal: Goal | str, noise: Noise) -> Gain | None:
    """Return the gain of ``after`` over ``before``, values of one type of device; None where one side is empty."""
    if not before or not after:
        return None
    n, m = len(after), len(before)
    return Gain(difference(fmean(before), fmean(after), goal), standard_error(noise, n, m), n, m)


def gain_of_runs(
    before: Sequence[Measurement], after: Sequence[Measurement], goal: Goal | str, noise: Noise
) -> Gain | None:
    """Return the gain of ``after`` over ``before``, compared within each type of device and averaged over types.

    Runs on a type that only one side has do not count; see ``on_shared_devices``.
    """
    kinds, parts = _shared_types(before, after), list[Gain]()
    for kind in kinds or [""]:
        old, new = (values_of(run for run in runs if not kinds or run.device_type == kind) for runs in (before, after))
        if part := gain_of(old, new, goal, noise):
            parts.append(part)
    if not parts:
        return None
    errors = [part.se for part in parts if part.se is not None]
    se = math.hypot(*errors) / len(parts) if errors else None
    return Gain(fmean(part.value for part in parts), se, sum(part.n for part in parts), sum(part.m for part in parts))


def on_shared_devices(
    before: Sequence[Measurement], after: Sequence[Measurement]
) -> tuple[list[Measurement], list[Measurement]]:
    """Return the runs of both sides on types of device that both have a value on; all runs without such a type.

    A time budget buys more training on faster hardware, so values of different types are not comparable.
    """
    kinds = _shared_types(before, after)
    old, new = ([run for run in runs if not kinds or run.device_type in kinds] for runs in (before, after))
    return old, new


def _shared_types(before: Sequence[Measurement], after: Sequence[Measurement]) -> list[str]:
    known = {run.device_type for run in before if run.counts}
    return list(dict.fromkeys(run.device_type for run in after if run.counts and run.device_type in known))


def without_screening_run(runs: Sequence[Measurement]) -> tuple[Measurement, ...]:
    """Return the runs that estimate a commit's value once it is kept: without the screening run, if others worked.

    The screening run selected the edit, so its value is too good on average (selection bias).
    """
    later = tuple(run for run in runs if run.role != "screen")
    return later if any(run.value is not None for run in later) else tuple(runs)
