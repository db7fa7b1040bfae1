"""What a promotion compares and what it found: pure functions of the runs at larger settings.

Both sides of a comparison run under equal seeds, so the evidence is the differences d_1 … d_n of pairs. The variance of
a difference is moderated: with v the median variance of the comparisons at a setting and s² that of one comparison,

    s̃² = (PRIOR · v + (n - 1) · s²) / (PRIOR + n - 1),  se = s̃ / sqrt(n),  PRIOR + n - 1 degrees of freedom,

so that two pairs which agree by chance do not count as certain. A comparison stops early only beyond a stricter level,
so that repeated looks hardly raise the error of the last one (Haybittle-Peto).

Sources:
    G. K. Smyth, Linear models and empirical Bayes methods, 2004, doi 10.2202/1544-6115.1027 (moderated variance).
    R. Peto et al., British Journal of Cancer 34, 1976, doi 10.1038/bjc.1976.220 (stopping early).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean, median, variance
from typing import Literal

from agent.judge.gain import difference
from agent.judge.noise import t_quantile
from agent.ledger.state import State
from agent.replay.plan import Job, Run, Runs, planned, runs_left
from agent.replay.steps import Step
from agent.trial.seeds import session_seed
from agent.types import Goal, Measurement, Value

Outcome = Literal["holds", "shrinks", "reverses", "fails", "no effect", "cannot tell"]
FIRST = 2_000_000  # index of the first seed of a promotion in the session's sequence: no run of the night had it
LEVEL = 0.95  # of the one-sided intervals after the last seed
EARLY = 0.995  # the same before it
PRIOR = 2  # degrees of freedom of the median variance
PAIRS = 2  # before the first decision
REPLACED = "the setting replaces all that it changes"
WHOLE, TOGETHER = -1, -2  # numbers of the whole branch, and of the edits that hold, together


@dataclass(frozen=True)
class Setting:
    """A size to promote to."""

    budget: str
    values: Mapping[str, Value] = field(default_factory=dict)  # of the hyperparameter block

    def __str__(self) -> str:
        return ", ".join([*(f"{name}={value}" for name, value in self.values.items()), self.budget])


@dataclass(frozen=True)
class Comparison:
    """One question at a setting: what does ``after`` gain over ``before``? Both are commits at the setting."""

    edit: Step  # as the night measured it; number -1 is the whole branch, -2 the edits that hold, together
    before: Step
    after: Step
    obstacle: str = ""  # why it cannot be measured

    @property
    def sides(self) -> tuple[Step, ...]:
        return () if self.obstacle else (self.before, self.after)


@dataclass(frozen=True)
class Stage:
    """A setting and its comparisons."""

    setting: Setting
    comparisons: tuple[Comparison, ...]


@dataclass(frozen=True)
class Promotion:
    """Everything that a promotion measures."""

    what: str  # tag of the run
    stages: tuple[Stage, ...]
    rounds: int  # seeds at most
    goal: Goal
    metric: str
    budget: str  # of the night
    seed: int = 0
    self_reported: bool = False
    ablate: bool = False

    def jobs(self, comparisons: Iterable[Comparison]) -> list[Job]:
        """Both sides of each comparison, with all their runs."""
        runs = tuple(Run(session_seed(self.seed, FIRST + k)) for k in range(self.rounds))
        return [Job(step, runs) for step in {step.commit: step for c in comparisons for step in c.sides}.values()]

    @property
    def all_jobs(self) -> list[Job]:
        return self.jobs(comparison for stage in self.stages for comparison in stage.comparisons)


@dataclass(frozen=True)
class Finding:
    """What the pairs of one comparison say. Gains are in units of the metric; positive is better."""

    comparison: Comparison
    outcome: Outcome
    reason: str
    gain: float | None = None
    se: float | None = None
    pairs: int = 0
    decided: bool = True  # more seeds would not change the outcome


@dataclass(frozen=True)
class Result:
    """What a promotion has found so far."""

    plan: Promotion
    found: tuple[tuple[Finding, ...], ...]  # for each stage
    complete: bool = False
    left: int = 0  # runs at most until every comparison is decided

    @property
    def held(self) -> tuple[int, ...]:
        """Trials of the edits that are a gain at every setting."""
        stages = [
            {f.comparison.edit.trial for f in found if f.comparison.edit.number > 0 and held(f)} for found in self.found
        ]
        return tuple(sorted(trial for trial in set.intersection(*stages) if trial is not None)) if stages else ()


def result_in(state: State) -> Result | None:
    """The result of the promotion that a ledger records; None before it has a plan."""
    plan = planned(state, Promotion)
    return result_of(plan, state.runs, bool(state.ended)) if plan else None


def result_of(plan: Promotion, runs: Runs, complete: bool = False) -> Result:
    """The result of a plan after ``runs``."""
    found = tuple(findings(stage, runs, plan.rounds, plan.goal) for stage in plan.stages)
    jobs = plan.jobs(f.comparison for stage in found for f in stage if not f.decided)
    return Result(plan, found, complete, sum(runs_left(jobs, runs).values()))


def findings(stage: Stage, runs: Runs, rounds: int, goal: Goal) -> tuple[Finding, ...]:
    """One finding for each comparison of a stage."""
    pairs = [_differences(comparison, runs, goal) for comparison in stage.comparisons]
    known = [variance(found) for found in pairs if len(found) > 1]
    usual = median(known) if known else 0.0
    return tuple(
        _finding(comparison, found, usual, runs, rounds)
        for comparison, found in zip(stage.comparisons, pairs, strict=True)
    )


def _differences(comparison: Comparison, runs: Runs, goal: Goal) -> list[float]:
    """The gain under each seed that both sides have a value for."""
    before, after = (
        {run.seed: run.value for run in runs.get(step.commit, ())} for step in (comparison.before, comparison.after)
    )
    both = [(before[seed], after[seed]) for seed in before if seed in after]
    return [difference(old, new, goal) for old, new in both if old is not None and new is not None]


def _finding(comparison: Comparison, pairs: list[float], usual: float, runs: Runs, rounds: int) -> Finding:
    if comparison.obstacle:
        return Finding(
            comparison, "no effect" if comparison.obstacle == REPLACED else "cannot tell", comparison.obstacle
        )
    n = len(pairs)
    if failure := _failure(runs.get(comparison.before.commit, ())):
        return Finding(comparison, "cannot tell", f"what it builds on: {failure}", pairs=n)
    if failure := _failure(runs.get(comparison.after.commit, ())):
        return Finding(comparison, "fails", failure, pairs=n)
    if n < PAIRS:
        gain = fmean(pairs) if pairs else None
        return Finding(comparison, "cannot tell", "too few runs", gain, None, n, decided=False)
    if not any(pairs):
        return Finding(comparison, "no effect", "equal values under every seed", 0.0, 0.0, n)
    freedom, gain = PRIOR + n - 1, fmean(pairs)
    se = math.sqrt((PRIOR * usual + (n - 1) * variance(pairs)) / freedom / n)
    last = n >= rounds
    reach = t_quantile(LEVEL if last else EARLY, freedom) * se
    outcome, reason = _outcome(gain - reach, gain + reach, comparison.edit)
    apart = gain - reach > 0 or gain + reach <= 0  # an interval around 0 may still become one below it
    return Finding(comparison, outcome, reason, gain, se, n, decided=last or apart)


def _failure(runs: Sequence[Measurement]) -> str:
    """Why a commit has no value; "" if no run of it failed."""
    return next((f"{run.status}: {run.reason}" for run in runs if run.value is None), "")


def _outcome(low: float, high: float, edit: Step) -> tuple[Outcome, str]:
    """Compare the interval of a gain with 0 and with the gain of the night."""
    if high <= 0:
        return "reverses", "worse at this setting" if high < 0 else "no better at this setting"
    smaller = edit.gain is not None and high < edit.gain - (edit.gain_se or 0.0)
    if smaller:
        return "shrinks", "gains less than at night" if low > 0 else "gains less than at night, possibly nothing"
    if low > 0:
        return "holds", "better at this setting too"
    return "cannot tell", "within the noise of so few runs"


def held(finding: Finding) -> bool:
    """Whether an edit is a gain at a setting, be it a smaller one than at night."""
    return finding.outcome == "holds" or finding.reason == "gains less than at night"
