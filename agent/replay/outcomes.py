"""Recorded against replayed: a pure function of both. The statistics: docs/explanation/replay.md.

What a commit promises is its gain over the commit before it, so gains are compared: values shift with the machine, and
with a budget in seconds they do so honestly. With σ estimated by s on ν degrees of freedom, from everything that was
run more than once, the gain g between means over n and m runs has the interval g ± t(0.95, ν) · s · sqrt(1/n + 1/m).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Literal

from agent.judge.noise import Noise, t_quantile
from agent.replay.steps import Step
from agent.types import Goal, Measurement

Outcome = Literal["reproduced", "not reproduced", "cannot tell", "baseline"]
LEVEL = 0.95  # one-sided


@dataclass(frozen=True)
class Finding:
    """What became of one step. ``gain`` and ``se`` are replayed; ``shift`` is the replayed minus the recorded value."""

    step: Step
    outcome: Outcome
    reason: str
    value: float | None  # mean of the replayed runs
    n: int
    gain: float | None = None
    se: float | None = None
    shift: float | None = None


def gain_between(before: Sequence[float], after: Sequence[float], goal: Goal) -> float | None:
    """Positive when ``after`` is better; None where one side has no value."""
    if not before or not after:
        return None
    return (fmean(before) - fmean(after)) * (1.0 if goal == "minimize" else -1.0)


def gain_se(noise: Noise, n: int, m: int) -> float | None:
    """Standard error of the difference between two means of n and m runs; None while the noise is not known."""
    return None if noise.sd is None or not n or not m else noise.sd * math.sqrt(1 / n + 1 / m)


def findings(
    steps: Sequence[Step], runs: Mapping[str, Sequence[Measurement]], goal: Goal, noise: Noise
) -> tuple[Finding, ...]:
    """One finding per step; each step is compared with the last one before it that has a value."""
    found: list[Finding] = []
    before: list[float] = []
    for step in steps:
        mine = runs.get(step.commit, ())
        values = [run.value for run in mine if run.value is not None]
        failed = next((run for run in mine if run.value is None), None)
        value = fmean(values) if values else None
        shift = value - step.recorded if value is not None and step.recorded is not None else None
        if not values:
            why = f"{failed.status}: {failed.reason}" if failed else "was not run"
            found.append(Finding(step, "not reproduced" if failed else "cannot tell", why, None, 0))
            continue
        if step.number == 0:
            found.append(Finding(step, "baseline", _shift_words(shift, noise), value, len(values), shift=shift))
        else:
            gain, se = gain_between(before, values, goal), gain_se(noise, len(values), len(before))
            outcome, reason = compare(step, gain, se, noise.dof)
            found.append(Finding(step, outcome, reason, value, len(values), gain, se, shift))
        before = values
    return tuple(found)


def compare(step: Step, gain: float | None, se: float | None, dof: int) -> tuple[Outcome, str]:
    """Whether a replayed gain bears the recorded one out, and why.

    Reproduced: the whole interval lies above 0. Not reproduced: it lies at or below 0; or it reaches up to no gain that
    the record, with its own error, allows, and down to 0. Anything else cannot be told from so few runs.
    """
    if gain is None:
        return "cannot tell", "nothing before it has a value"
    if se is None:
        return "cannot tell", "one run on each side, and nothing says how much they scatter: use --seeds 3"
    reach = t_quantile(LEVEL, dof) * se if se and dof else 0.0
    low, high = gain - reach, gain + reach
    if low > 0:
        return "reproduced", "better in the replay too" + _less(step, high)
    if high <= 0:
        return "not reproduced", "no better in the replay"
    if step.gain is not None:
        least = step.gain - t_quantile(LEVEL, max(dof, 1)) * (step.gain_se or 0.0)
        if high < least:
            return "not reproduced", "less than the record allows, and perhaps nothing"
    return "cannot tell", "within the noise of so few runs"


def exactly(step: Step, replayed: Sequence[Measurement], before: Finding | None, goal: Goal) -> Finding:
    """The finding of ``--exact``: each run must give the bits of the recorded run with its seed.

    What is recorded of the step is here the mean of just those runs.
    """
    recorded = {run.seed: run for run in step.runs}
    followed = [a.value for run in replayed if (a := recorded.get(run.seed)) and a.value is not None]
    step = replace(step, recorded=fmean(followed) if followed else step.recorded, gain_se=None)
    if before is not None and before.step.recorded is not None and step.recorded is not None:
        step = replace(step, gain=gain_between([before.step.recorded], [step.recorded], goal))
    values = [run.value for run in replayed if run.value is not None]
    value = fmean(values) if values else None
    gain = gain_between([before.value], values, goal) if before and before.value is not None and values else None
    pairs = [(recorded.get(run.seed), run) for run in replayed]
    shift = next((b.value - a.value for a, b in pairs if a and a.value is not None and b.value is not None), None)
    if not pairs:
        return Finding(step, "cannot tell", "no recorded run has kept its schedule trace", None, 0)
    failed = next((b for _, b in pairs if b.value is None), None)
    if failed:
        return Finding(step, "not reproduced", f"{failed.status}: {failed.reason}", value, len(values), gain)
    same = sum(1 for a, b in pairs if a and a.value == b.value)
    if same == len(pairs):
        told = "bit for bit" if same == 1 else f"bit for bit, in {same} runs"
        return Finding(step, "reproduced", told, value, len(values), gain, shift=shift)
    return Finding(step, "not reproduced", f"{same} of {len(pairs)} runs have the same bits", value, len(values), gain,
                   shift=shift)  # fmt: skip


def _less(step: Step, high: float) -> str:
    if step.gain is None or high >= step.gain - (step.gain_se or 0.0):
        return ""
    return ", though by less than recorded"


def _shift_words(shift: float | None, noise: Noise) -> str:
    if shift is None:
        return "nothing is recorded of it"
    if not noise.sd:
        return "the same value" if shift == 0 else f"{shift:+.4f} against the record"
    return f"{shift:+.4f} against the record, {abs(shift) / noise.sd:.1f} standard deviations of a run"
