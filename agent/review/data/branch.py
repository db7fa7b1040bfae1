"""What the branch reached, kept edit by kept edit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from statistics import quantiles

from agent import text
from agent.judge.gain import difference
from agent.ledger.state import State
from agent.review.data.summary import estimate, test_value
from agent.types import values_of


@dataclass(frozen=True)
class Step:
    """The value of the branch from one trial on."""

    trial: int  # 0 is the baseline
    value: float  # mean over all runs that estimate it
    gain: float  # over the baseline; positive is better
    test_gain: float | None  # the same on the test split
    subject: str


def steps_of(state: State) -> tuple[Step, ...]:
    """Return the baseline and each kept edit; empty while the baseline has no value."""
    goal = state.session.goal
    baseline, before = estimate(state.baseline_runs), test_value(state.baseline_runs)
    if baseline is None:
        return ()
    steps = [Step(0, baseline.value, 0.0, None, "baseline")]
    for record in state.kept:
        runs = state.runs.get(record.candidate or "", ())
        found, after = estimate(runs), test_value(runs)
        reported = record.verdict if record.verdict and record.verdict.probability is not None else None
        value = reported.value if reported and reported.value is not None else found.value if found else None
        if value is None:
            continue
        gain = difference(baseline.value, value, goal)
        test_gain = None if before is None or after is None else difference(before, after, goal)
        steps.append(Step(record.number, value, gain, test_gain, text.line(record.proposal.subject)))
    return tuple(steps)


def reached_at(steps: Sequence[Step]) -> list[float]:
    """Where each value of the branch begins: edits are not always kept in the order of their trials."""
    return list(accumulate((float(step.trial) for step in steps), max))


def value_range(state: State, steps: Sequence[Step], noise_sd: float | None) -> tuple[float, float]:
    """Return the range of the values worth drawing: the branch with its noise, and the middle 90 % of the attempts."""
    tried = [r.verdict.value for r in state.finished if r.verdict and r.verdict.value is not None]
    if len(tried) > 9:
        cuts = quantiles(tried, n=20)
        tried = [value for value in tried if cuts[1] <= value <= cuts[-2]]
    values = [*(step.value for step in steps), *tried, *values_of(state.baseline_runs)]
    if not values:
        return 0.0, 1.0
    margin = 3 * (noise_sd or 0.0)
    return padded(min(values) - margin, max(values) + margin)


def padded(low: float, high: float) -> tuple[float, float]:
    """Return a range that is a little wider, so that no mark touches the edge of a chart."""
    pad = 0.06 * (high - low) or abs(high) * 0.01 or 0.5
    return low - pad, high + pad
