"""Decide from measurements whether an edit is kept, reverted or measured again. Pure functions.

Four policies decide; docs/explanation/acceptance.md derives them:

- ``greedy`` keeps every better value, as existing tools do. It keeps noise.
- ``margin`` decides from one run: it keeps a gain above t(1 - alpha, dof) standard errors.
- ``confirm``, the default, compares commits under equal seeds. One model reads all runs of the session
  (``agent.judge.belief``). A sequential test keeps, drops or asks for another run (``agent.judge.paired``).
- ``stacked`` is decided elsewhere (``agent.judge.stacked``): its runs carry several edits. Where edits come one by
  one, as in a published list or without noise, it is ``confirm``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

from agent.errors import OvernightError, UsageError, check_choice
from agent.judge.gain import Gain, added, gain_of
from agent.judge.noise import Noise, t_quantile
from agent.types import Decision, Goal, Measurement, Role, Verdict, values_of

if TYPE_CHECKING:
    from agent.judge.belief import Belief
    from agent.judge.hopeless import Watch

NAMES = ("confirm", "margin", "greedy", "stacked")
MARGIN_INCUMBENT_RUNS = 3  # runs of the incumbent before ``margin`` keeps an edit
MEMORY_SHARE = 0.25  # growth of peak memory, as a share, above which an edit needs twice the gain
MEMORY_FLOOR = 0.1  # GB of growth that never counts: small processes vary by their share
CLEAR = 3.0  # standard errors of a gain that is clear from one run on each side
RETRIES = 2  # failed repeats of the incumbent that are tolerated
UNSTABLE = 0.1  # a baseline whose noise exceeds this share of its mean stops the session


@dataclass(frozen=True)
class Policy:
    """How much evidence an edit needs. docs/decisions/acceptance.md: the choice of constants."""

    name: str = "confirm"
    alpha: float = 0.05  # margin: false-positive rate of one decision
    keep_simpler: bool = False  # keep a tie within the noise if its syntax tree is smaller
    stop_hopeless: bool = True  # confirm: stop a run whose loss curve says that the edit will be dropped


@dataclass(frozen=True)
class History:
    """Everything that a verdict may depend on. Runs are in order of time and on one type of device."""

    goal: Goal
    incumbent: str  # measured commit of the present best
    candidate: str  # commit of the edit
    incumbent_runs: tuple[Measurement, ...]
    candidate_runs: tuple[Measurement, ...]
    noise: Noise
    simpler_by: int = 0  # nodes of the syntax tree that the candidate removes
    best: float | None = None  # value of the branch by the reported gains; None: the mean of the incumbent's runs
    trial: int = 0
    runs: int = 0  # that the trial has used, runs of the incumbent included
    belief: Belief | None = None  # confirm: with the trial open; None where runs do not vary, or of a published list
    seeds: tuple[int, ...] = ()  # confirm: that may run


@dataclass(frozen=True)
class MeasureNext:
    """The run that is needed before a verdict."""

    commit: str
    role: Role
    reason: str
    seed: int | None = None  # None: the session's next seed that the commit has not run
    watch: Watch | None = None  # when the run is stopped


def judge(history: History, policy: Policy) -> Verdict | MeasureNext:
    """Return the verdict, or the next run that it needs.

    Raises:
        UsageError: The policy needs the noise, and no commit has two values.
        OvernightError: Every run of the incumbent failed.
    """
    before, after = values_of(history.incumbent_runs), values_of(history.candidate_runs)
    gain = gain_of(before, after, history.goal, history.noise)
    failed = next((run for run in history.candidate_runs if run.value is None), None)
    if failed is not None:
        reason = f"{failed.status}: {failed.reason}" if failed.reason else failed.status
        foretold = failed.prediction and Gain(failed.prediction.gain, failed.prediction.se, 0, 1)
        return _verdict(history, "revert", reason, foretold or gain)
    if missing := _first_runs(history, policy):
        return missing
    assert gain is not None
    if policy.name == "greedy":
        better = gain.value > 0
        return _verdict(history, "keep" if better else "revert", "better" if better else "not better", gain)
    if history.noise.sd is None:
        raise UsageError("the noise is unknown: no commit has two successful runs. Use --calibrate 3 or more.")
    return _margin(history, policy, gain) if policy.name == "margin" else _confirm(history, policy, gain)


def _first_runs(history: History, policy: Policy) -> MeasureNext | None:
    """The run that comes before any comparison."""
    if not values_of(history.incumbent_runs):
        if len(history.incumbent_runs) > RETRIES:
            raise OvernightError(f"the present best, {history.incumbent[:10]}, fails in every run.")
        return MeasureNext(history.incumbent, "incumbent", "the present best has no value yet")
    if history.candidate_runs:
        return None
    known = {run.seed for run in history.incumbent_runs if run.value is not None}
    shared = [seed for seed in history.seeds if seed in known]  # a paired run tells more
    return MeasureNext(history.candidate, "screen", "first run", next(iter([*shared, *history.seeds]), None))


def _margin(history: History, policy: Policy, gain: Gain) -> Verdict | MeasureNext:
    """One-sided t test of one run of the candidate."""
    assert gain.se is not None
    bar = t_quantile(1 - policy.alpha, history.noise.dof) * gain.se * _memory_factor(history)
    if gain.value > bar:
        runs = history.incumbent_runs
        if history.noise.sd and gain.m < MARGIN_INCUMBENT_RUNS and len(runs) - gain.m <= RETRIES:
            return MeasureNext(history.incumbent, "incumbent", "the present best needs more runs")
        return _verdict(history, "keep", f"gain above the bar of {bar:.4g}", gain)
    if policy.keep_simpler and history.simpler_by > 0 and gain.value >= -gain.se:
        return _verdict(history, "keep", _simpler(history), gain)
    return _verdict(history, "revert", f"gain not above the bar of {bar:.4g}", gain)


def _confirm(history: History, policy: Policy, gain: Gain) -> Verdict | MeasureNext:
    """The paired sequential test."""
    tie = policy.keep_simpler and history.simpler_by > 0
    if not history.noise.sd:
        return _without_noise(history, gain, tie)
    if history.belief is None:
        return _from_one_run(history, gain)
    from agent.judge import paired  # loads numpy

    of_candidate, of_incumbent = (
        {run.seed for run in runs} for runs in (history.candidate_runs, history.incumbent_runs)
    )
    evidence = paired.Evidence(history.trial, of_candidate, of_incumbent, history.runs)
    costly = _memory_factor(history) > 1
    step, found = paired.decide(history.belief, evidence, history.seeds, paired.KEEP_COSTLY if costly else paired.KEEP)
    reason = in_words(found.probability) + (", and needs much more memory" if costly else "")
    if isinstance(step, paired.Next):
        if step.of_candidate:
            return MeasureNext(history.candidate, "confirm", reason, step.seed)
        return MeasureNext(history.incumbent, "incumbent", reason, step.seed)
    if step == "revert" and tie and found.gain >= -found.se:
        step, reason = "keep", _simpler(history)
    verdict = _verdict(history, step, reason, Gain(found.gain, found.se, gain.n, gain.m))
    value = None if verdict.best_before is None else added(verdict.best_before, found.gain, history.goal)
    return replace(verdict, value=value, pairs=len(of_candidate & of_incumbent), probability=found.probability)


def in_words(probability: float) -> str:
    """The probability of a gain, rounded down: 94.9 % must not read as a bar of 95 %."""
    return f"a gain with probability {'over 99' if probability > 0.99 else math.floor(100 * probability)} %"


def _from_one_run(history: History, gain: Gain) -> Verdict | MeasureNext:
    """One run on each side and a known noise, as in a published list: only a clear difference decides."""
    assert gain.se is not None
    errors = gain.value / gain.se
    if errors > CLEAR:
        return _verdict(history, "keep", f"clear: {_cut(errors)} standard errors", gain)
    if errors < 0:
        return _verdict(history, "revert", "not better", gain)
    return MeasureNext(history.candidate, "confirm", f"{_cut(errors)} standard errors, and {CLEAR:g} are clear")


def _cut(errors: float) -> str:
    """One decimal, rounded down: 2.96 must not read as the bar of 3."""
    return f"{math.floor(10 * errors) / 10:.1f}"


def _without_noise(history: History, gain: Gain, tie: bool) -> Verdict:
    """A deterministic target: every difference is real."""
    if gain.value > 0:
        return _verdict(history, "keep", "better, on a target without noise", gain)
    same = tie and gain.value == 0
    return _verdict(history, "keep" if same else "revert", _simpler(history) if same else "not better", gain)


def _memory_factor(history: History) -> float:
    after, before = (
        max((run.peak_memory_gb or 0.0 for run in runs), default=0.0)
        for runs in (history.candidate_runs, history.incumbent_runs)
    )
    return 2.0 if before > 0 and after > before * (1 + MEMORY_SHARE) + MEMORY_FLOOR else 1.0


def _simpler(history: History) -> str:
    return f"a tie within the noise, and {history.simpler_by} syntax nodes simpler"


def _verdict(history: History, decision: Decision, reason: str, gain: Gain | None) -> Verdict:
    values, before = values_of(history.candidate_runs), values_of(history.incumbent_runs)
    return Verdict(
        decision=decision,
        value=fmean(values) if values else None,
        best_before=history.best if history.best is not None else fmean(before) if before else None,
        gain=gain.value if gain else None,
        gain_se=gain.se if gain else None,
        n=len(values),
        n_before=gain.m if gain else len(before),
        dof=history.noise.dof,
        reason=reason,
    )


def undone(runs: Sequence[Measurement], noise: Noise, reason: str) -> Verdict:
    """Return a verdict that reverts for a reason other than the values."""
    values = values_of(runs)
    return Verdict("revert", fmean(values) if values else None, None, None, None, len(values), 0, noise.dof, reason)


def policy_from(name: str, **constants: Any) -> Policy:
    """Return the policy ``name`` with these constants. Raises UsageError, with the nearest name, if there is none."""
    check_choice(name, NAMES, "policy")
    return Policy(name, **constants)


def needs_noise(policy: Policy) -> bool:
    return policy.name != "greedy"


def default_calibration(policy: Policy, trials: int | None) -> int:
    """Return how often the baseline runs first: once if the policy needs no noise, else more where no run repeats."""
    if not needs_noise(policy):
        return 1
    if policy.name == "confirm":
        return 3
    return 4 if trials is not None and trials < 40 else 5


def check_baseline(runs: Sequence[Measurement], policy: Policy) -> None:
    """Check that the baseline is stable enough to judge edits against it.

    Args:
        runs: Runs of the unchanged target on one type of device.

    Raises:
        OvernightError: Most runs failed, fewer than two are left, or the noise exceeds ``UNSTABLE`` of the mean.
    """
    values = values_of(runs)
    failed = [run for run in runs if run.value is None]
    if len(failed) > len(values):
        worst = failed[-1]
        raise OvernightError(
            f"the unchanged target failed in {len(failed)} of {len(runs)} runs (last failure: {worst.status}: "
            f"{worst.reason}). Make it run reliably first."
        )
    if not needs_noise(policy):
        return
    if len(values) < 2:
        raise OvernightError(
            f"policy {policy.name} needs two successful runs of the unchanged target to estimate the noise, and has "
            f"{len(values)}. Raise --calibrate, or use --policy greedy."
        )
    mean, sd = fmean(values), stdev(values)
    if sd > UNSTABLE * abs(mean) > 0:
        listed = ", ".join(f"{x:.4g}" for x in values)
        raise OvernightError(
            f"runs of the unchanged target differ by a standard deviation of {sd / abs(mean):.0%} of the mean "
            f"({listed}): too much noise to detect a gain. Train longer (--budget), make training stable, or use "
            f"--policy greedy."
        )
