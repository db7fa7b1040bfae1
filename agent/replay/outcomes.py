"""What a replay found: pure functions of the recorded and the replayed runs. See docs/explanation/replay.md.

Gains over the commit before are compared, not values: values differ between machines. With the noise estimated by s on
ν degrees of freedom, the gain g between means of n and m runs has the interval g ± t(0.95, ν) · s · sqrt(1/n + 1/m).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Literal

from agent.judge.gain import difference
from agent.judge.noise import Noise, pooled_noise, repeated_values, standard_error, t_quantile
from agent.ledger.state import State
from agent.replay.plan import Plan, Runs, planned, runs_left
from agent.replay.steps import Step
from agent.types import Goal, Measurement

Outcome = Literal[
    "reproduced", "not reproduced", "cannot tell", "baseline", "holds", "does not hold", "cannot be left out"
]
Judge = Callable[[Step, float | None, float | None, int], tuple[Outcome, str]]  # step, gain, standard error, dof
LEVEL = 0.95  # of the one-sided intervals


@dataclass(frozen=True)
class Finding:
    """What the replayed runs say about a step."""

    step: Step
    outcome: Outcome
    reason: str
    value: float | None = None  # mean of the replayed runs
    n: int = 0  # replayed runs with a value
    gain: float | None = None  # replayed; positive is better. In an ablation: what the edit gains the whole branch
    se: float | None = None  # standard error of ``gain``
    shift: float | None = None  # replayed minus recorded value
    commit: str | None = None  # measured commit, in an ablation the head without the step


@dataclass(frozen=True)
class Result:
    """What a replay has found so far."""

    plan: Plan
    findings: tuple[Finding, ...]
    noise: Noise
    total: Finding | None = None  # the last step against the baseline
    ablations: tuple[Finding, ...] = ()  # of the edits whose cut was measured so far
    minimal: Finding | None = None  # the branch without the edits that do not hold, against the whole branch
    complete: bool = False
    left: int = 0  # runs that are planned and missing
    differs: tuple[str, ...] = ()  # what differs between recorded and replayed runs, if ``plan.exact``

    @property
    def reproduced(self) -> bool:
        """No step failed to reproduce, and the whole branch is better than its baseline; with ``exact``, all bits."""
        if self.plan.exact:
            return all(finding.outcome == "reproduced" for finding in self.findings)
        whole = self.total is not None and self.total.outcome == "reproduced"
        return whole and all(finding.outcome != "not reproduced" for finding in self.findings if finding.step.number)


def result_in(state: State) -> Result | None:
    """The result of the replay that a ledger records; None before it has a plan."""
    plan = planned(state, Plan)
    return result_of(plan, state.runs, bool(state.ended)) if plan else None


def result_of(plan: Plan, runs: Runs, complete: bool = False) -> Result:
    """The result of a plan after ``runs``."""
    noise = noise_of(plan, runs)
    left = sum(runs_left(plan.all_jobs, runs).values())
    if plan.exact:
        return Result(plan, exact_findings(plan, runs), noise, complete=complete, left=left)
    found, whole = findings(plan, runs, noise), total(plan, runs, noise)
    head = values_of(runs.get(plan.steps[-1].commit, ()))
    tested = None
    if plan.rest and plan.rest.commit in runs:
        tested = finding(plan.rest, runs[plan.rest.commit], head, plan, noise, _as_good)
    return Result(plan, found, noise, whole, ablations_of(plan, runs, noise), tested, complete, left)


def noise_of(plan: Plan, runs: Runs) -> Noise:
    """Noise pooled over commits and device types: of replayed runs, and of recorded ones under the same budget."""
    recorded = [step.runs for step in plan.steps] if plan.same_budget else []
    return pooled_noise(values for group in (*runs.values(), *recorded) for values in repeated_values(group))


def values_of(runs: Sequence[Measurement]) -> list[float]:
    return [run.value for run in runs if run.value is not None]


def _gain(before: Sequence[float], after: Sequence[float], goal: Goal) -> float | None:
    """Gain of one mean over another; None if one side has no value."""
    return difference(fmean(before), fmean(after), goal) if before and after else None


def margin(se: float | None, dof: int) -> float:
    """Half width of the one-sided interval of a gain."""
    return t_quantile(LEVEL, dof) * se if se and dof else 0.0


def findings(plan: Plan, runs: Runs, noise: Noise) -> tuple[Finding, ...]:
    """One finding per step. Each step is compared with the last step before it that has a value."""
    found: list[Finding] = []
    before: list[float] = []
    for step in plan.steps:
        mine = runs.get(step.commit, ())
        found.append(finding(step, mine, before, plan, noise, compare if step.number else _baseline))
        before = values_of(mine) or before
    return tuple(found)


def finding(
    step: Step, runs: Sequence[Measurement], before: Sequence[float], plan: Plan, noise: Noise, judge: Judge
) -> Finding:
    """Compare the replayed runs of a step with the values ``before``."""
    if not runs:
        return Finding(step, "cannot tell", "was not run")
    values = values_of(runs)
    if not values:
        return Finding(step, "not reproduced", f"{runs[-1].status}: {runs[-1].reason}")
    gain, se = _gain(before, values, plan.goal), standard_error(noise, len(values), len(before))
    shift = None if step.recorded is None else fmean(values) - step.recorded
    outcome, reason = judge(step, gain, se, noise.dof)
    if outcome == "baseline" and shift is not None:
        spread = f", {abs(shift) / noise.sd:.1f} standard deviations of a run" if noise.sd else ""
        reason = f"{shift:+.4f} against the record{spread}"
    return Finding(step, outcome, reason, fmean(values), len(values), gain, se, shift)


def _baseline(_step: Step, _gain: float | None, _se: float | None, _dof: int) -> tuple[Outcome, str]:
    return "baseline", "no recorded value"


def compare(step: Step, gain: float | None, se: float | None, dof: int) -> tuple[Outcome, str]:
    """Compare a replayed gain with the recorded gain of a step.

    Reproduced: the interval lies above 0. Not reproduced: the interval lies at or below 0; or it contains 0 and lies
    below every gain that the record allows. Otherwise the runs are too few to tell.
    """
    if gain is None:
        return "cannot tell", "no step before it has a value"
    if se is None:
        return "cannot tell", "one run on each side, and the noise is unknown: use --seeds 3"
    low, high = gain - margin(se, dof), gain + margin(se, dof)
    if low > 0:
        smaller = step.gain is not None and high < step.gain - (step.gain_se or 0.0)
        return "reproduced", "better in the replay too" + (", but by less than recorded" if smaller else "")
    if high <= 0:
        return "not reproduced", "no better in the replay"
    if step.gain is not None and high < step.gain - margin(step.gain_se, max(dof, 1)):
        return "not reproduced", "less than the record allows, and possibly zero"
    return "cannot tell", "within the noise of so few runs"


def total(plan: Plan, runs: Runs, noise: Noise) -> Finding | None:
    """The last step that has a value, compared with the baseline."""
    first = plan.steps[0]
    last = next((s for s in reversed(plan.steps[1:]) if values_of(runs.get(s.commit, ()))), None)
    before = values_of(runs.get(first.commit, ()))
    if last is None or not before:
        return None
    ends = [[end.recorded] if end.recorded is not None else [] for end in (first, last)]
    whole = replace(last, gain=_gain(ends[0], ends[1], plan.goal), gain_se=None, subject="the whole branch")
    return finding(whole, runs[last.commit], before, plan, noise, compare)


# --- exact ----------------------------------------------------------------------------------------------------------


def exact_findings(plan: Plan, runs: Runs) -> tuple[Finding, ...]:
    """One finding per step: each run must give the bits of the recorded run with its seed."""
    found: list[Finding] = []
    for step in plan.steps:
        found.append(_exact_finding(step, runs.get(step.commit, ()), found[-1] if found else None, plan.goal))
    return tuple(found)


def _exact_finding(step: Step, replayed: Sequence[Measurement], before: Finding | None, goal: Goal) -> Finding:
    recorded = {run.seed: run.value for run in step.runs}
    pairs = [(recorded.get(run.seed), run.value) for run in replayed]
    if followed := [old for old, _ in pairs if old is not None]:
        step = replace(step, recorded=fmean(followed))  # the mean of the followed runs only
    if before is not None and before.step.recorded is not None and step.recorded is not None:
        step = replace(step, gain=_gain([before.step.recorded], [step.recorded], goal))
    step, values = replace(step, gain_se=None), values_of(replayed)
    value = fmean(values) if values else None
    gain = _gain([before.value], values, goal) if before and before.value is not None else None
    shift = next((new - old for old, new in pairs if old is not None and new is not None), None)
    same = sum(1 for old, new in pairs if old == new)
    failed = next((run for run in replayed if run.value is None), None)
    outcome: Outcome = "not reproduced"
    if not pairs:
        outcome, reason = "cannot tell", "no recorded run has kept its schedule trace"
    elif failed:
        reason = f"{failed.status}: {failed.reason}"
    elif same == len(pairs):
        outcome, reason = "reproduced", "bit for bit" if same == 1 else f"bit for bit, in {same} runs"
    else:
        reason = f"{same} of {len(pairs)} runs have the same bits"
    return Finding(step, outcome, reason, value, len(values), gain, shift=shift)


# --- ablation -------------------------------------------------------------------------------------------------------


def ablations_of(plan: Plan, runs: Runs, noise: Noise) -> tuple[Finding, ...]:
    """A finding for each edit whose cut was measured, or cannot be made."""
    whole = values_of(runs.get(plan.steps[-1].commit, ()))
    found = []
    for cut in plan.cuts:
        if cut.without is None:
            reason = "later edits build on it, or nothing is left of it"
            found.append(Finding(cut.edit, "cannot be left out", reason))
        elif measured := runs.get(commit := cut.without.commit):
            without = finding(cut.without, measured, whole, plan, noise, _need)
            if not without.n:
                without = replace(without, outcome="holds", reason=f"without it: {without.reason}")
            loss = None if without.gain is None else -without.gain
            found.append(replace(without, step=cut.edit, commit=commit, gain=loss))
    return tuple(found)


def _need(_step: Step, gain: float | None, se: float | None, dof: int) -> tuple[Outcome, str]:
    """Whether the branch needs an edit; ``gain`` is that of the branch without it."""
    if gain is None:
        return "cannot tell", "the whole branch has no value"
    if gain >= 0:
        return "does not hold", "the branch is no worse without it"
    if se is None:
        return "cannot tell", "the noise is unknown: use --seeds 3"
    if gain + margin(se, dof) < 0:
        return "holds", "the branch is worse without it"
    return "cannot tell", "within the noise of so few runs"


def _as_good(_step: Step, gain: float | None, se: float | None, dof: int) -> tuple[Outcome, str]:
    if gain is None or gain + margin(se, dof) < 0:
        return "not reproduced", "worse than the whole branch"
    return "reproduced", "no worse than the whole branch"


def minimal_branch(what: str) -> str:
    """``autoresearch/TAG-minimal``, after the last part of what was replayed."""
    return f"autoresearch/{what.rpartition('..')[2].rpartition('/')[2] or 'branch'}-minimal"
