"""What a replay found: pure functions of the recorded and the replayed runs. See docs/explanation/replay.md.

Gains over the commit before are compared, not values: values differ between machines. With the noise estimated by s on
ν degrees of freedom, the gain g between means of n and m runs has the interval g ± t(0.95, ν) · s · sqrt(1/n + 1/m).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Literal

from agent.judge.noise import Noise, pooled_noise, t_quantile
from agent.replay.plan import Plan
from agent.replay.steps import Step
from agent.types import Goal, Measurement

Outcome = Literal["reproduced", "not reproduced", "cannot tell", "baseline"]
Need = Literal["holds", "does not hold", "cannot tell", "cannot be left out"]
Runs = Mapping[str, Sequence[Measurement]]  # replayed runs by commit
LEVEL = 0.95  # of the one-sided intervals


@dataclass(frozen=True)
class Finding:
    """The outcome of one step."""

    step: Step
    outcome: Outcome
    reason: str
    value: float | None  # mean of the replayed runs
    n: int  # replayed runs with a value
    gain: float | None = None  # replayed, over the step before; positive is better
    se: float | None = None  # standard error of ``gain``
    shift: float | None = None  # replayed minus recorded value


@dataclass(frozen=True)
class Ablation:
    """A kept edit, and what the branch loses without it."""

    step: Step
    need: Need
    reason: str
    commit: str | None = None  # head of the branch without the edit
    value: float | None = None
    loss: float | None = None  # positive: the branch is worse without the edit
    se: float | None = None


@dataclass(frozen=True)
class Minimal:
    """The branch without the edits that do not hold, compared with the whole branch."""

    branch: str
    commit: str
    left_out: tuple[Step, ...]
    gain: float | None  # over the whole branch; positive is better
    se: float | None
    worse: bool  # worse than the whole branch beyond the noise, or failed: the branch is not made
    reason: str


@dataclass(frozen=True)
class Result:
    """What a replay has found so far."""

    plan: Plan
    findings: tuple[Finding, ...]
    noise: Noise
    total: Finding | None = None  # the last step against the baseline
    ablations: tuple[Ablation, ...] = ()  # of the edits that were measured so far
    minimal: Minimal | None = None
    complete: bool = False
    differs: tuple[str, ...] = ()  # what differs between recorded and replayed runs, if ``plan.exact``

    @property
    def reproduced(self) -> bool:
        """No step failed to reproduce, and the whole branch is better than its baseline; with ``exact``, all bits."""
        if self.plan.exact:
            return all(finding.outcome == "reproduced" for finding in self.findings)
        whole = self.total is not None and self.total.outcome == "reproduced"
        return whole and all(finding.outcome != "not reproduced" for finding in self.findings if finding.step.number)


def result_of(plan: Plan, runs: Runs, minimal: Step | None = None, complete: bool = False) -> Result:
    """The result of a plan after ``runs``; ``minimal`` is the branch without the edits that do not hold."""
    noise = noise_of(plan, runs)
    if plan.exact:
        return Result(plan, exact_findings(plan, runs), noise, complete=complete)
    result = Result(plan, findings(plan, runs, noise), noise, total(plan, runs, noise), complete=complete)
    ablations = ablations_of(plan, runs, noise)
    tested = minimal_of(plan, minimal, ablations, runs, noise) if minimal and minimal.commit in runs else None
    return replace(result, ablations=ablations, minimal=tested)


def noise_of(plan: Plan, runs: Runs) -> Noise:
    """Noise pooled over all commits with several runs: replayed ones, and recorded ones under the same budget."""
    recorded = [step.runs for step in plan.steps] if plan.same_budget else []
    return pooled_noise(map(values_of, [*runs.values(), *recorded]))


def values_of(runs: Sequence[Measurement]) -> list[float]:
    return [run.value for run in runs if run.value is not None]


def gain_between(before: Sequence[float], after: Sequence[float], goal: Goal) -> float | None:
    """Difference of two means, positive when ``after`` is better; None if one side has no value."""
    if not before or not after:
        return None
    return (fmean(before) - fmean(after)) * (1.0 if goal == "minimize" else -1.0)


def gain_se(noise: Noise, n: int, m: int) -> float | None:
    """Standard error of the difference between means of n and m runs; None while the noise is unknown."""
    return None if noise.sd is None or not n or not m else noise.sd * (1 / n + 1 / m) ** 0.5


def margin(se: float | None, dof: int) -> float:
    """Half width of the one-sided interval of a gain."""
    return t_quantile(LEVEL, dof) * se if se and dof else 0.0


def findings(plan: Plan, runs: Runs, noise: Noise) -> tuple[Finding, ...]:
    """One finding per step. Each step is compared with the last step before it that has a value."""
    found: list[Finding] = []
    before: list[float] = []
    for step in plan.steps:
        values = values_of(runs.get(step.commit, ()))
        if not values:
            found.append(_without_value(step, runs.get(step.commit, ())))
            continue
        value = fmean(values)
        shift = None if step.recorded is None else value - step.recorded
        if step.number == 0:
            found.append(Finding(step, "baseline", _shift_words(shift, noise), value, len(values), shift=shift))
        else:
            gain, se = gain_between(before, values, plan.goal), gain_se(noise, len(values), len(before))
            found.append(Finding(step, *compare(step, gain, se, noise.dof), value, len(values), gain, se, shift))
        before = values
    return tuple(found)


def _without_value(step: Step, runs: Sequence[Measurement]) -> Finding:
    if not runs:
        return Finding(step, "cannot tell", "was not run", None, 0)
    return Finding(step, "not reproduced", f"{runs[-1].status}: {runs[-1].reason}", None, 0)


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
    after = values_of(runs[last.commit])
    gain, se = gain_between(before, after, plan.goal), gain_se(noise, len(after), len(before))
    ends = [[end.recorded] if end.recorded is not None else [] for end in (first, last)]
    whole = replace(last, gain=gain_between(ends[0], ends[1], plan.goal), gain_se=None, subject="the whole branch")
    return Finding(whole, *compare(whole, gain, se, noise.dof), fmean(after), len(after), gain, se)


def _shift_words(shift: float | None, noise: Noise) -> str:
    if shift is None:
        return "no recorded value"
    if not noise.sd:
        return "the same value" if shift == 0 else f"{shift:+.4f} against the record"
    return f"{shift:+.4f} against the record, {abs(shift) / noise.sd:.1f} standard deviations of a run"


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
        step = replace(step, gain=gain_between([before.step.recorded], [step.recorded], goal))
    step, values = replace(step, gain_se=None), values_of(replayed)
    value = fmean(values) if values else None
    gain = gain_between([before.value], values, goal) if before and before.value is not None else None
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


def ablations_of(plan: Plan, runs: Runs, noise: Noise) -> tuple[Ablation, ...]:
    """The need for each edit whose cut was measured, or cannot be made."""
    whole = values_of(runs.get(plan.steps[-1].commit, ()))
    found = []
    for cut in plan.cuts:
        if cut.without is None:
            found.append(Ablation(cut.edit, "cannot be left out", "later edits build on it, or nothing is left of it"))
        elif measured := runs.get(commit := cut.without.commit):
            if values := values_of(measured):
                loss, se = gain_between(values, whole, plan.goal), gain_se(noise, len(whole), len(values))
                need, reason = _need(loss, se, noise.dof)
                found.append(Ablation(cut.edit, need, reason, commit, fmean(values), loss, se))
            else:
                failed = f"without it: {measured[-1].status}: {measured[-1].reason}"
                found.append(Ablation(cut.edit, "holds", failed, commit))
    return tuple(found)


def _need(loss: float | None, se: float | None, dof: int) -> tuple[Need, str]:
    if loss is None:
        return "cannot tell", "the whole branch has no value"
    if loss <= 0:
        return "does not hold", "the branch is no worse without it"
    if se is None:
        return "cannot tell", "the noise is unknown: use --seeds 3"
    if loss > margin(se, dof):
        return "holds", "the branch is worse without it"
    return "cannot tell", "within the noise of so few runs"


def minimal_of(plan: Plan, step: Step, ablations: Sequence[Ablation], runs: Runs, noise: Noise) -> Minimal:
    """Whether the branch without the edits that do not hold is as good as the whole branch."""
    out = tuple(ablation.step for ablation in ablations if ablation.need == "does not hold")
    values, whole = values_of(runs[step.commit]), values_of(runs.get(plan.steps[-1].commit, ()))
    gain, se = gain_between(whole, values, plan.goal), gain_se(noise, len(values), len(whole))
    worse = gain is None or gain + margin(se, noise.dof) < 0
    reason = (
        "it fails" if gain is None else "worse than the whole branch" if worse else "no worse than the whole branch"
    )
    return Minimal(minimal_branch(plan.what), step.commit, out, gain, se, worse, reason)


def minimal_branch(what: str) -> str:
    """``autoresearch/TAG-minimal``, after the last part of what was replayed."""
    return f"autoresearch/{what.rpartition('..')[2].rpartition('/')[2] or 'branch'}-minimal"
