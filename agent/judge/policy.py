"""Decide from measurements whether an edit is kept, reverted or measured again. Pure functions.

Three policies decide; docs/explanation/acceptance.md derives them:

- ``greedy`` keeps every better value, as existing tools do. It keeps noise.
- ``margin`` decides from one run: it keeps a gain above t(1 - alpha, dof) standard errors.
- ``confirm``, the default, reverts a clear loss after one run and repeats a promising edit with new seeds until a
  sequential test decides. It then trains both sides once more. These held-out runs (role ``reserve``) play no part in
  the decision, so the gain that they give has no selection bias.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, stdev
from typing import Any

from agent.errors import OvernightError, UsageError
from agent.judge.gain import Gain, gain_of, without_screening_run
from agent.judge.noise import Noise, last_shift, t_quantile
from agent.ledger.events import Event, Judged, Measured, Resumed
from agent.types import Decision, Goal, Measurement, Role, Verdict

NAMES = ("confirm", "margin", "greedy")
MARGIN_INCUMBENT_RUNS = 3  # runs of the incumbent before ``margin`` keeps an edit
RETRIES = 2  # failed repeats of the incumbent that are tolerated
UNSTABLE = 0.1  # a baseline whose noise exceeds this share of its mean stops the session
RESUMED = 1_000_000  # age of an incumbent that was last measured before the session was resumed


@dataclass(frozen=True)
class Policy:
    """How much evidence an edit needs. docs/measurements.md shows how the constants of ``confirm`` were chosen."""

    name: str = "confirm"
    alpha: float = 0.05  # margin: false-positive rate of one decision
    keep_simpler: bool = False  # keep a tie within the noise if its syntax tree is smaller
    memory_share: float = 0.25  # growth of peak memory, as a share, above which an edit needs twice the gain
    level: float = 0.033  # confirm: false-positive rate of one look; Bonferroni bound: (max_runs - 1) * level in all
    max_runs: int = 4  # confirm: most runs of a candidate before the decision, the screening run included
    gate: float = 0.25  # confirm: revert after n runs if the gain is below gate * n standard errors
    incumbent_runs: int = 4  # confirm: runs of the incumbent before an edit is kept
    recheck_every: int = 5  # confirm: trials after which the incumbent is measured again


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
    incumbent_age: int = 0  # trials since the incumbent was last measured, by ``trials_since``


@dataclass(frozen=True)
class MeasureNext:
    """The run that is needed before a verdict."""

    commit: str
    role: Role
    reason: str


def judge(history: History, policy: Policy) -> Verdict | MeasureNext:
    """Return the verdict, or the next run that it needs.

    Raises:
        UsageError: The policy needs the noise, and no commit has two values.
        OvernightError: Every run of the incumbent failed.
    """
    failed = next((run for run in history.candidate_runs if run.value is None), None)
    if failed is not None:
        reason = f"{failed.status}: {failed.reason}" if failed.reason else failed.status
        return _verdict(history, "revert", reason, _gain(history))
    if missing := _first_runs(history, policy):
        return missing
    if policy.name == "greedy":
        return _greedy(history)
    if history.noise.sd is None:
        raise UsageError("the noise is unknown: no commit has two successful runs. Use --calibrate 3 or more.")
    return _confirm(history, policy) if policy.name == "confirm" else _margin(history, policy)


def _first_runs(history: History, policy: Policy) -> MeasureNext | None:
    """The run that comes before any comparison."""
    if not _values(history.incumbent_runs):
        if len(history.incumbent_runs) > RETRIES:
            raise OvernightError(f"the present best, {history.incumbent[:10]}, fails in every run.")
        return MeasureNext(history.incumbent, "incumbent", "the present best has no value yet")
    if history.candidate_runs:
        return None
    if policy.name == "confirm" and history.incumbent_age >= policy.recheck_every:
        return MeasureNext(history.incumbent, "incumbent", "repeated, to detect drift of the machine")
    return MeasureNext(history.candidate, "screen", "first run")


def _greedy(history: History) -> Verdict:
    gain = gain_of(_values(history.incumbent_runs), _values(history.candidate_runs), history.goal, history.noise)
    better = gain is not None and gain.value > 0
    return _verdict(history, "keep" if better else "revert", "better" if better else "not better", gain)


def _margin(history: History, policy: Policy) -> Verdict | MeasureNext:
    """One-sided t test of one run of the candidate."""
    gain = gain_of(_values(history.incumbent_runs), _values(history.candidate_runs), history.goal, history.noise)
    assert gain is not None
    assert gain.se is not None
    bar = t_quantile(1 - policy.alpha, history.noise.dof) * gain.se * _memory_factor(history, policy)
    if gain.value > bar:
        if history.noise.sd and _needs_incumbent_run(history, gain.m, MARGIN_INCUMBENT_RUNS):
            return MeasureNext(history.incumbent, "incumbent", "the present best needs more runs")
        return _verdict(history, "keep", f"gain above the bar of {bar:.4g}", gain)
    if policy.keep_simpler and history.simpler_by > 0 and gain.value >= -gain.se:
        return _verdict(history, "keep", _simpler(history), gain)
    return _verdict(history, "revert", f"gain not above the bar of {bar:.4g}", gain)


def _confirm(history: History, policy: Policy) -> Verdict | MeasureNext:
    """A sequential t test with a bar for keeping and a bar for reverting at each look.

    Testing growing data at a fixed level inflates the false-positive rate. By the Bonferroni bound, all looks together
    keep an edit without effect with probability at most (max_runs - 1) * level.
    """
    gain = _gain(history)
    assert gain is not None
    assert gain.se is not None
    if any(run.role == "reserve" for run in history.candidate_runs):
        return _with_held_out_gain(history, gain)
    tie = policy.keep_simpler and history.simpler_by > 0
    if not history.noise.sd:
        return _without_noise(history, gain, tie)
    t = gain.value / gain.se / (_memory_factor(history, policy) if gain.value > 0 else 1.0)
    floor = -1.0 if tie else policy.gate * gain.n
    bar = t_quantile(1 - policy.level, history.noise.dof)
    passed = gain.n > 1 and t > bar  # the screening run alone never decides
    if not passed and t < floor:
        return _verdict(history, "revert", f"{t:+.1f} standard errors, below {floor:.1f}{_drift(history)}", gain)
    if _needs_incumbent_run(history, gain.m, policy.incumbent_runs):
        return MeasureNext(history.incumbent, "incumbent", "the present best needs more runs")
    if passed or (tie and gain.n >= policy.max_runs):
        return MeasureNext(history.candidate, "reserve", "decided; held-out run for an unbiased gain")
    if gain.n < policy.max_runs:
        return MeasureNext(history.candidate, "confirm", f"{t:+.1f} standard errors: promising")
    return _verdict(history, "revert", f"{t:+.1f} standard errors, not above {bar:.1f}{_drift(history)}", gain)


def _without_noise(history: History, gain: Gain, tie: bool) -> Verdict:
    """A deterministic target: every difference is real."""
    if gain.value > 0:
        return _verdict(history, "keep", "better, on a target without noise", gain)
    same = tie and gain.value == 0
    return _verdict(history, "keep" if same else "revert", _simpler(history) if same else "not better", gain)


def _with_held_out_gain(history: History, decided: Gain) -> Verdict | MeasureNext:
    """Keep, and estimate the gain from one held-out run per side."""
    own = any(
        run.role == "confirm" for run in history.incumbent_runs
    )  # the first held-out run belongs to its own trial
    held_out = [run.value for run in history.incumbent_runs if run.role == "reserve"][int(own) :]
    fresh = [value for value in held_out if value is not None]
    if not fresh and len(held_out) <= RETRIES:
        return MeasureNext(history.incumbent, "reserve", "decided; held-out run for an unbiased gain")
    after = _values(run for run in history.candidate_runs if run.role == "reserve")
    gain = gain_of(fresh or _values(history.incumbent_runs), after, history.goal, history.noise)
    reason = f"better in {decided.n} runs" if decided.value > 0 else _simpler(history)
    verdict = _verdict(history, "keep", f"{reason}; gain from held-out runs{_drift(history)}", gain)
    unselected = _values(without_screening_run(history.candidate_runs))
    return replace(verdict, value=fmean(unselected), n_before=decided.m)


def _gain(history: History) -> Gain | None:
    """The gain that ``confirm`` tests: no held-out runs of the candidate, no runs from before the last drift."""
    before = _values(history.incumbent_runs)
    before = before[last_shift(before, history.noise) :]
    after = _values(run for run in history.candidate_runs if run.role != "reserve")
    return gain_of(before, after, history.goal, history.noise)


def _drift(history: History) -> str:
    """The part of a reason that reports a drift of the machine; "" without one."""
    values = _values(history.incumbent_runs)
    start = last_shift(values, history.noise)
    if not start:
        return ""
    return f"; the machine drifted by {fmean(values[start:]) - fmean(values[:start]):+.4g}: older runs do not count"


def _needs_incumbent_run(history: History, counting: int, wanted: int) -> bool:
    """Whether the incumbent gets another run; an incumbent that keeps failing or drifting does not."""
    failures = sum(run.value is None for run in history.incumbent_runs)
    return counting < wanted and failures <= RETRIES and len(history.incumbent_runs) < 3 * wanted


def _memory_factor(history: History, policy: Policy) -> float:
    after, before = (
        max((run.peak_memory_gb or 0.0 for run in runs), default=0.0)
        for runs in (history.candidate_runs, history.incumbent_runs)
    )
    return 2.0 if before > 0 and after > before * (1 + policy.memory_share) else 1.0


def _simpler(history: History) -> str:
    return f"a tie within the noise, and {history.simpler_by} syntax nodes simpler"


def _values(runs: Iterable[Measurement]) -> list[float]:
    return [run.value for run in runs if run.value is not None]


def _verdict(history: History, decision: Decision, reason: str, gain: Gain | None) -> Verdict:
    values, before = _values(history.candidate_runs), _values(history.incumbent_runs)
    return Verdict(
        decision=decision,
        value=fmean(values) if values else None,
        best_before=fmean(before) if before else None,
        gain=gain.value if gain else None,
        gain_se=gain.se if gain else None,
        n=len(values),
        n_before=gain.m if gain else len(before),
        dof=history.noise.dof,
        reason=reason,
    )


def undone(runs: Sequence[Measurement], noise: Noise, reason: str) -> Verdict:
    """Return a verdict that reverts for a reason other than the values."""
    values = _values(run for run in runs if run.role != "test")
    return Verdict("revert", fmean(values) if values else None, None, None, None, len(values), 0, noise.dof, reason)


def trials_since(events: Sequence[Event], commit: str) -> int:
    """Return how many trials were judged since ``commit`` was last measured; ``RESUMED`` if a resume lies between."""
    count = 0
    for event in reversed(events):
        match event:
            case Measured(measurement=run) if run.commit == commit and run.role != "test":
                break
            case Resumed():
                return RESUMED
            case Judged():
                count += 1
    return count


def policy_from(name: str, **constants: Any) -> Policy:
    """Return the policy ``name`` with these constants.

    Raises:
        UsageError: There is no such policy; names the nearest.
    """
    if name not in NAMES:
        near = difflib.get_close_matches(name, NAMES, n=1)
        raise UsageError(
            f"no policy {name!r}." + (f" Did you mean {near[0]!r}?" if near else f" There are: {', '.join(NAMES)}.")
        )
    return replace(Policy(name), **constants)


def needs_noise(policy: Policy) -> bool:
    return policy.name != "greedy"


def default_calibration(policy: Policy, trials: int | None) -> int:
    """Return how often the baseline runs first: 5 times, 4 for a short session, once if the policy needs no noise."""
    if not needs_noise(policy):
        return 1
    return 4 if trials is not None and trials < 40 else 5


def check_baseline(runs: Sequence[Measurement], policy: Policy) -> None:
    """Check that the baseline is stable enough to judge edits against it.

    Args:
        runs: Runs of the unchanged target on one type of device.

    Raises:
        OvernightError: Most runs failed, fewer than two are left, or the noise exceeds ``UNSTABLE`` of the mean.
    """
    values = _values(runs)
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
