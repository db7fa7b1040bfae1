"""What a replay or promotion found: pure functions of its plan and its runs. See docs/explanation/replay.md.

Each question is about a gain g. With its standard error se on ν degrees of freedom, the interval g ± t(level, ν) · se
is compared with 0 and with the recorded gain. There are two estimates of se.

A replay pools the noise s between runs of one commit: se = s · sqrt(1/n + 1/m) between means of n and m runs.

A promotion uses the differences d_1 … d_n of pairs of runs under equal seeds. Their variance is moderated: with v the
median variance of the comparisons at a setting and s² that of one comparison,

    s̃² = (PRIOR · v + (n - 1) · s²) / (PRIOR + n - 1),  se = s̃ / sqrt(n),  PRIOR + n - 1 degrees of freedom,

so that two pairs which agree by chance do not count as certain. A comparison stops early only beyond a stricter level,
so that repeated looks hardly raise the error of the last one (Haybittle-Peto).

Sources:
    G. K. Smyth, Linear models and empirical Bayes methods, 2004, doi 10.2202/1544-6115.1027 (moderated variance).
    R. Peto et al., British Journal of Cancer 34, 1976, doi 10.1038/bjc.1976.220 (stopping early).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean, median, variance
from typing import Literal

from agent.judge.gain import Gain, difference, gain_of
from agent.judge.noise import Noise, pooled_noise, repeated_values, t_quantile
from agent.ledger.state import State
from agent.replay.plan import Comparison, Plan, Runs, Stage, planned, sides_of
from agent.replay.steps import TOGETHER, WHOLE, Step
from agent.types import Goal, Measurement, values_of

Outcome = Literal[
    "reproduced", "not reproduced", "cannot tell", "baseline",
    "holds", "does not hold", "cannot be left out", "shrinks", "reverses", "fails", "no effect",
]  # fmt: skip
LEVEL = 0.95  # of the one-sided intervals after the last seed
EARLY = 0.995  # the same before it
PRIOR = 2  # degrees of freedom of the median variance
PAIRS = 2  # before the first decision
REPLACED = "the setting replaces all that it changes"
SMALLER = "gains less than in the session"
FEW = "within the noise of so few runs"
NO_NOISE = "the noise is unknown: use --seeds 3"


@dataclass(frozen=True)
class Finding:
    """What the runs say about one comparison. Gains are in units of the metric; positive is better."""

    edit: Step  # as recorded
    outcome: Outcome
    reason: str
    gain: float | None = None
    se: float | None = None  # standard error of ``gain``
    n: int = 0  # runs of the new side with a value; of a promotion, pairs
    value: float | None = None  # mean of these runs; of a cut, of the branch without the edit
    decided: bool = False  # more seeds would not change the outcome of a promotion

    @property
    def measured(self) -> bool:
        """Whether there is a run, or there cannot be one."""
        return self.n > 0 or self.outcome != "cannot tell"


@dataclass(frozen=True)
class Result:
    """What was found so far."""

    plan: Plan
    found: tuple[tuple[Finding, ...], ...]  # for each stage
    noise: Noise
    complete: bool = False
    differs: tuple[str, ...] = ()  # what differs between recorded and replayed runs, if ``plan.exact``

    @property
    def undecided(self) -> tuple[list[Step], ...]:
        """For each stage the commits of the comparisons that more runs may change."""
        stages = zip(self.plan.stages, self.found, strict=True)
        pairs = (zip(stage.comparisons, found, strict=True) for stage, found in stages)
        return tuple(sides_of(c for c, finding in part if not finding.decided) for part in pairs)

    @property
    def steps(self) -> tuple[Finding, ...]:
        """The baseline and the edits of a replay."""
        return tuple(f for f in self.found[0] if f.edit.number >= 0)

    @property
    def total(self) -> Finding | None:
        """The whole branch of a replay against its baseline; None before both have a value."""
        return next((f for f in self.found[0] if f.edit.number == WHOLE and f.gain is not None), None)

    @property
    def ablations(self) -> tuple[Finding, ...]:
        """The edits whose cut was measured, or cannot be made."""
        return tuple(finding for finding in self._cuts if finding.edit.number > 0 and finding.measured)

    @property
    def minimal(self) -> Finding | None:
        """The branch without the edits that do not hold, against the whole branch."""
        return next((f for f in self._cuts if f.edit.number == TOGETHER and f.measured), None)

    @property
    def _cuts(self) -> tuple[Finding, ...]:
        return self.found[1] if self.plan.kind == "replay" and self.plan.stages[1:] else ()

    @property
    def dropped(self) -> set[int]:
        """Numbers of the edits that do not hold; none while an edit is undecided."""
        edits = [finding for finding in self.found[-1] if finding.edit.number > 0]
        if self.plan.kind == "replay":
            return {f.edit.number for f in edits if f.outcome == "does not hold" and all(e.measured for e in edits)}
        decided = all(finding.decided for found in self.found for finding in found)
        return {finding.edit.number for finding in edits if decided and finding.edit.trial not in self.held}

    @property
    def reproduced(self) -> bool:
        """No step failed to reproduce, and the whole branch is better than its baseline; with ``exact``, all bits."""
        if self.plan.exact:
            return all(finding.outcome == "reproduced" for finding in self.steps)
        whole = self.total is not None and self.total.outcome == "reproduced"
        return whole and all(finding.outcome != "not reproduced" for finding in self.steps[1:])

    @property
    def held(self) -> tuple[int, ...]:
        """Trials of the edits that are a gain at every setting of a promotion."""
        stages = [{f.edit.trial for f in found if f.edit.number > 0 and held(f)} for found in self.found]
        return tuple(sorted(trial for trial in set.intersection(*stages) if trial is not None))


def held(finding: Finding) -> bool:
    """Whether an edit is a gain at a setting, even if it is smaller than in the session."""
    return finding.outcome == "holds" or finding.reason == SMALLER


def result_in(state: State) -> Result | None:
    """The result that a ledger records; None before it has a plan."""
    plan = planned(state)
    return result_of(plan, state.runs, bool(state.ended)) if plan else None


def result_of(plan: Plan, runs: Runs, complete: bool = False) -> Result:
    """The result of a plan after ``runs``."""
    noise = noise_of(plan, runs)
    return Result(plan, tuple(findings(plan, stage, runs, noise) for stage in plan.stages), noise, complete)


def noise_of(plan: Plan, runs: Runs) -> Noise:
    """Noise pooled over commits and device types: of new runs, and of recorded ones under the same budget."""
    recorded = [step.runs for step in plan.recorded] if plan.same_budget else []
    return pooled_noise(values for group in (*runs.values(), *recorded) for values in repeated_values(group))


def findings(plan: Plan, stage: Stage, runs: Runs, noise: Noise) -> tuple[Finding, ...]:
    """One finding for each comparison of a stage."""
    if stage.question == "setting":
        return _promoted(plan, stage, runs)
    if plan.exact:
        return _exact(plan, runs)
    found: list[Finding] = []
    latest: list[float] = []  # values of the last step that has any
    for comparison in stage.comparisons:
        before, after = (runs.get(step.commit, ()) for step in (comparison.before, comparison.after))
        if stage.question == "cuts" and comparison.edit.number > 0:
            found.append(_cut(comparison, before, values_of(after), plan.goal, noise))
            continue
        base = latest if comparison.edit.number >= 0 else values_of(before)
        found.append(_replayed(comparison.edit, base, after, plan.goal, noise))
        latest = values_of(after) or latest
    return tuple(found)


def margin(se: float | None, dof: int, level: float = LEVEL) -> float:
    """Half width of the one-sided interval of a gain."""
    return t_quantile(level, dof) * se if se and dof else 0.0


def _failure(runs: Sequence[Measurement]) -> str:
    """Why a commit has no value; "" if no run of it failed."""
    return next((f"{run.status}: {run.reason}" for run in runs if run.value is None), "")


# --- replay ---------------------------------------------------------------------------------------------------------


def _replayed(edit: Step, before: list[float], after: Sequence[Measurement], goal: Goal, noise: Noise) -> Finding:
    """Compare the runs of a step with the values ``before``."""
    if not after:
        return Finding(edit, "cannot tell", "was not run")
    if not (values := values_of(after)):
        return Finding(edit, "not reproduced", _failure(after))
    gain = gain_of(before, values, goal, noise)
    if edit.number == 0:
        outcome: Outcome = "baseline"
        shift = fmean(values) - (edit.recorded or 0.0)
        spread = f", {abs(shift) / noise.sd:.1f} standard deviations of a run" if noise.sd else ""
        reason = "no recorded value" if edit.recorded is None else f"{shift:+.4f} against the record{spread}"
    elif edit.number == TOGETHER:
        worse = gain is None or gain.value + margin(gain.se, noise.dof) < 0
        outcome = "not reproduced" if worse else "reproduced"
        reason = f"{'' if worse else 'no '}worse than the whole branch"
    else:
        outcome, reason = compare(edit, gain, noise.dof)
    return _finding(edit, outcome, reason, gain, values)


def _finding(edit: Step, outcome: Outcome, reason: str, gain: Gain | None, values: list[float]) -> Finding:
    value, se = (gain.value, gain.se) if gain else (None, None)
    return Finding(edit, outcome, reason, value, se, len(values), fmean(values))


def compare(step: Step, gain: Gain | None, dof: int) -> tuple[Outcome, str]:
    """Compare a replayed gain with the recorded gain of a step.

    Reproduced: the interval lies above 0. Not reproduced: the interval lies at or below 0; or it contains 0 and lies
    below every gain that the record allows. Otherwise the runs are too few to tell.
    """
    if gain is None:
        return "cannot tell", "no step before it has a value"
    if gain.se is None:
        return "cannot tell", f"one run on each side, and {NO_NOISE}"
    low, high = gain.value - margin(gain.se, dof), gain.value + margin(gain.se, dof)
    if low > 0:
        return "reproduced", "better in the replay too" + (", but by less than recorded" if _less(high, step) else "")
    if high <= 0:
        return "not reproduced", "no better in the replay"
    if step.gain is not None and high < step.gain - margin(step.gain_se, max(dof, 1)):
        return "not reproduced", "less than the record allows, and possibly zero"
    return "cannot tell", FEW


def _less(high: float, edit: Step) -> bool:
    """Whether all of an interval lies below the recorded gain and its standard error."""
    return edit.gain is not None and high < edit.gain - (edit.gain_se or 0.0)


def _cut(
    comparison: Comparison, without: Sequence[Measurement], whole: list[float], goal: Goal, noise: Noise
) -> Finding:
    """Whether the branch needs an edit: the whole branch against the branch without the edit."""
    edit = comparison.edit
    if comparison.obstacle:
        return Finding(edit, "cannot be left out", comparison.obstacle)
    if not without:
        return Finding(edit, "cannot tell", "was not run")
    if not (values := values_of(without)):
        return Finding(edit, "holds", f"without it: {_failure(without)}")
    outcome: Outcome = "cannot tell"
    gain = gain_of(values, whole, goal, noise)
    if gain is None:
        reason = "the whole branch has no value"
    elif gain.value <= 0:
        outcome, reason = "does not hold", "the branch is no worse without it"
    elif gain.se is None:
        reason = NO_NOISE
    elif gain.value - margin(gain.se, noise.dof) > 0:
        outcome, reason = "holds", "the branch is worse without it"
    else:
        reason = FEW
    return _finding(edit, outcome, reason, gain, values)


def _exact(plan: Plan, runs: Runs) -> tuple[Finding, ...]:
    """One finding per step: each run must give the bits of the recorded run with its seed."""
    found: list[Finding] = []
    for step in plan.recorded:
        found.append(_exact_finding(step, runs.get(step.commit, ()), found[-1] if found else None, plan.goal))
    return tuple(found)


def _exact_finding(step: Step, replayed: Sequence[Measurement], before: Finding | None, goal: Goal) -> Finding:
    recorded = {run.seed: run.value for run in step.runs}
    pairs = [(recorded.get(run.seed), run.value) for run in replayed]
    if followed := [old for old, _ in pairs if old is not None]:
        step = replace(step, recorded=fmean(followed))  # the mean of the followed runs only
    if before is not None and before.edit.recorded is not None and step.recorded is not None:
        step = replace(step, gain=difference(before.edit.recorded, step.recorded, goal))
    step, values = replace(step, gain_se=None), values_of(replayed)
    value = fmean(values) if values else None
    old_value = before.value if before else None
    gain = difference(old_value, value, goal) if old_value is not None and value is not None else None
    same = sum(1 for old, new in pairs if old == new)
    outcome: Outcome = "not reproduced"
    if not pairs:
        outcome, reason = "cannot tell", "no recorded run has kept its schedule trace"
    elif failure := _failure(replayed):
        reason = failure
    elif same == len(pairs):
        outcome, reason = "reproduced", "bit for bit" if same == 1 else f"bit for bit, in {same} runs"
    else:
        reason = f"{same} of {len(pairs)} runs have the same bits"
    return Finding(step, outcome, reason, gain, None, len(values), value)


# --- promotion ------------------------------------------------------------------------------------------------------


def _promoted(plan: Plan, stage: Stage, runs: Runs) -> tuple[Finding, ...]:
    pairs = [_differences(comparison, runs, plan.goal) for comparison in stage.comparisons]
    known = [variance(found) for found in pairs if len(found) > 1]
    usual = median(known) if known else 0.0
    return tuple(
        _at_setting(comparison, found, usual, runs, plan.rounds)
        for comparison, found in zip(stage.comparisons, pairs, strict=True)
    )


def _differences(comparison: Comparison, runs: Runs, goal: Goal) -> list[float]:
    """The gain under each seed that both sides have a value for."""
    before, after = (
        {run.seed: run.value for run in runs.get(step.commit, ())} for step in (comparison.before, comparison.after)
    )
    both = [(before[seed], after[seed]) for seed in before if seed in after]
    return [difference(old, new, goal) for old, new in both if old is not None and new is not None]


def _at_setting(comparison: Comparison, pairs: list[float], usual: float, runs: Runs, rounds: int) -> Finding:
    edit, n = comparison.edit, len(pairs)
    if comparison.obstacle:
        outcome: Outcome = "no effect" if comparison.obstacle == REPLACED else "cannot tell"
        return Finding(edit, outcome, comparison.obstacle, decided=True)
    if failure := _failure(runs.get(comparison.before.commit, ())):
        return Finding(edit, "cannot tell", f"what it builds on: {failure}", n=n, decided=True)
    if failure := _failure(runs.get(comparison.after.commit, ())):
        return Finding(edit, "fails", failure, n=n, decided=True)
    if n < PAIRS:
        return Finding(edit, "cannot tell", "too few runs", fmean(pairs) if pairs else None, n=n)
    if not any(pairs):
        return Finding(edit, "no effect", "equal values under every seed", 0.0, 0.0, n, decided=True)
    dof, gain = PRIOR + n - 1, fmean(pairs)
    se = math.sqrt((PRIOR * usual + (n - 1) * variance(pairs)) / dof / n)
    last = n >= rounds
    reach = margin(se, dof, LEVEL if last else EARLY)
    outcome, reason = _carries_over(gain - reach, gain + reach, edit)
    apart = gain - reach > 0 or gain + reach <= 0  # an interval around 0 may still become one below it
    return Finding(edit, outcome, reason, gain, se, n, decided=last or apart)


def _carries_over(low: float, high: float, edit: Step) -> tuple[Outcome, str]:
    """Compare the interval of a gain with 0 and with the gain of the session."""
    if high <= 0:
        return "reverses", "worse at this setting" if high < 0 else "no better at this setting"
    if _less(high, edit):
        return "shrinks", SMALLER if low > 0 else f"{SMALLER}, possibly nothing"
    if low > 0:
        return "holds", "better at this setting too"
    return "cannot tell", FEW
