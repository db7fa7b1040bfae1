"""Keep or revert: a pure function of what was measured. The statistics: docs/explanation/acceptance.md.

``confirm`` reverts a clear loss after one run. A promising candidate runs again with fresh seeds until a sequential
test decides, at most ``max_runs`` times; the incumbent, whose value is an estimate too, is topped up first. What was
kept is run once more, and so is what it replaces: only these two reserved runs tell the gain. ``margin`` decides from
one run: it keeps a gain over t(1 - alpha, ν) · s · sqrt(1/n + 1/m), with σ estimated by s on ν degrees of freedom.
``greedy`` keeps any lower value, as existing tools do: it keeps noise.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

from agent.errors import OvernightError, UsageError
from agent.judge.noise import Noise, last_shift, t_quantile
from agent.ledger.events import Event, Judged, Measured, Resumed
from agent.types import Decision, Goal, Measurement, Role, Verdict

NAMES = ("confirm", "margin", "greedy")
MARGIN_INCUMBENT_RUNS = 3  # a bar over a single run of the incumbent would be as noisy as that run
RETRIES = 2  # of an incumbent that fails when it is measured again
WILD = 0.1  # a baseline that scatters by this share of its value hides every edit worth having
RESUMED = 1_000_000  # age of an incumbent that was last measured before the session stopped


@dataclass(frozen=True)
class Policy:
    """How much evidence an edit needs. The constants of ``confirm`` are chosen in docs/measurements.md."""

    name: str = "confirm"
    alpha: float = 0.05  # margin: chance that one edit without effect is kept
    keep_simpler: bool = False  # ties within the noise are kept when the syntax tree is smaller
    memory_share: float = 0.25  # growth of peak memory that needs twice the gain
    level: float = 0.033  # confirm: the same chance at each look, so at most (max_runs - 1) times it in all
    max_runs: int = 4  # of a candidate before the decision, the screening run included
    gate: float = 0.25  # after n runs a gain under gate · n standard errors is given up
    incumbent_runs: int = 4  # that count in decisions, before a promising candidate is compared with them
    recheck_every: int = 5  # trials after which the incumbent is measured again


@dataclass(frozen=True)
class History:
    """All that a verdict may depend on. Runs are in the order in which they were measured."""

    goal: Goal
    incumbent: str
    candidate: str
    incumbent_runs: tuple[Measurement, ...]
    candidate_runs: tuple[Measurement, ...]
    noise: Noise
    simpler_by: int = 0  # nodes of the syntax tree that the candidate saves
    incumbent_age: int = 0  # trials since the incumbent was last measured: see ``trials_since``


@dataclass(frozen=True)
class MeasureNext:
    """The judge wants to see this commit once more before it decides."""

    commit: str
    role: Role
    reason: str


@dataclass(frozen=True)
class Comparison:
    """Candidate against incumbent, over the runs that count. ``gain`` is positive when the candidate is better."""

    gain: float
    se: float
    n: int  # runs of the candidate
    m: int  # of the incumbent


def policy_from(name: str, **constants: Any) -> Policy:
    if name not in NAMES:
        near = difflib.get_close_matches(name, NAMES, n=1)
        raise UsageError(
            f"no policy {name!r}." + (f" Did you mean {near[0]!r}?" if near else f" There are: {', '.join(NAMES)}.")
        )
    return replace(Policy(name), **constants)


def needs_noise(policy: Policy) -> bool:
    return policy.name != "greedy"


def default_calibration(policy: Policy, trials: int | None) -> int:
    """Runs of the baseline before the first edit: 5 for a night, 4 for a short one, 1 where noise does not count."""
    if not needs_noise(policy):
        return 1
    return 4 if trials is not None and trials < 40 else 5


def check_baseline(runs: Sequence[Measurement], policy: Policy) -> None:
    """What calibration must have shown before a night is spent on it.

    Raises:
        OvernightError: most runs of the unchanged target fail, too few are left to know the noise, or they scatter so
            widely that no edit could be told from noise.
    """
    values = [run.value for run in runs if run.value is not None]
    failed = [run for run in runs if run.value is None]
    if len(failed) > len(values):
        worst = failed[-1]
        raise OvernightError(
            f"the unchanged target failed in {len(failed)} of {len(runs)} runs (the last: {worst.status}: "
            f"{worst.reason}). Make it run reliably first."
        )
    if not needs_noise(policy):
        return
    if len(values) < 2:
        raise OvernightError(
            f"one run of the unchanged target is left to compare with, and the noise of policy {policy.name} needs "
            f"two. Use a greater --calibrate, or --policy greedy."
        )
    mean = fmean(values)
    sd = math.sqrt(math.fsum((x - mean) ** 2 for x in values) / (len(values) - 1))
    if sd > WILD * abs(mean) > 0:
        listed = ", ".join(f"{x:.4g}" for x in values)
        raise OvernightError(
            f"the unchanged target scatters by {sd / abs(mean):.0%} of its value between seeds ({listed}): no edit "
            f"could be told from noise. Train longer (--budget), or look for what is unstable; --policy greedy judges "
            f"without noise."
        )


def new_incumbent_runs(runs: tuple[Measurement, ...]) -> tuple[Measurement, ...]:
    """The runs that count for a commit once it was kept: without the lucky one that got it there, if possible."""
    later = tuple(run for run in runs if run.role != "screen")
    return later if any(run.value is not None for run in later) else runs


def trials_since(events: Sequence[Event], commit: str) -> int:
    """Trials judged since ``commit`` was last measured, by the ledger's events; ``RESUMED`` if a stop lies between."""
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


def judge(history: History, policy: Policy) -> Verdict | MeasureNext:
    """The verdict, or the measurement that is missing for one.

    Raises:
        UsageError: the policy needs the noise, and nothing was measured twice.
        OvernightError: the incumbent has no value, and fails whenever it is run.
    """
    before = _values(history.incumbent_runs)
    failed = next((run for run in history.candidate_runs if run.value is None), None)
    if failed is not None:
        reason = f"{failed.status}: {failed.reason}" if failed.reason else failed.status
        return _verdict(history, "revert", reason, _compare(history, *_sides(history)))
    if not before:
        if len(history.incumbent_runs) > RETRIES:
            raise OvernightError(f"the present best, {history.incumbent[:10]}, fails whenever it is run again.")
        return MeasureNext(history.incumbent, "incumbent", "the present best has no value yet")
    if policy.name == "confirm" and not history.candidate_runs and history.incumbent_age >= policy.recheck_every:
        return MeasureNext(history.incumbent, "incumbent", "measured again, to see whether the machine has drifted")
    if not history.candidate_runs:
        return MeasureNext(history.candidate, "screen", "first run")
    if policy.name == "greedy":
        seen = _compare(history, before, _values(history.candidate_runs))
        better = seen is not None and seen.gain > 0
        return _verdict(history, "keep" if better else "revert", "better" if better else "not better", seen)
    if history.noise.sd is None:
        raise UsageError("the noise is not known: no commit has two runs that worked. Use --calibrate 3 or more.")
    return _confirm(history, policy) if policy.name == "confirm" else _margin(history, policy)


def _margin(history: History, policy: Policy) -> Verdict | MeasureNext:
    seen = _compare(history, _values(history.incumbent_runs), _values(history.candidate_runs))
    assert seen is not None
    bar = t_quantile(1 - policy.alpha, history.noise.dof) * seen.se * _memory_factor(history, policy)
    if seen.gain > bar:
        if history.noise.sd and _may_top_up(history, seen.m, MARGIN_INCUMBENT_RUNS):
            return MeasureNext(history.incumbent, "incumbent", "the present best has too few runs to be compared with")
        return _verdict(history, "keep", f"gain over the bar of {bar:.4g}", seen)
    if policy.keep_simpler and history.simpler_by > 0 and seen.gain >= -seen.se:
        return _verdict(history, "keep", _simpler(history), seen)
    return _verdict(history, "revert", f"gain not over the bar of {bar:.4g}", seen)


def _confirm(history: History, policy: Policy) -> Verdict | MeasureNext:
    """A sequential test with a bar for keeping and one for giving up at each look (docs/explanation/acceptance.md).

    Bonferroni's bound adds the looks' levels up, whatever they have to do with one another.
    """
    seen = _compare(history, *_sides(history))
    assert seen is not None
    if any(run.role == "reserve" for run in history.candidate_runs):
        return _reserved(history, seen)
    tie = policy.keep_simpler and history.simpler_by > 0
    if not history.noise.sd:  # a deterministic target: what is seen is what is there
        if seen.gain > 0:
            return _verdict(history, "keep", "better, and nothing varies between runs", seen)
        same = tie and seen.gain == 0
        return _verdict(history, "keep" if same else "revert", _simpler(history) if same else "not better", seen)
    unit = seen.se * (_memory_factor(history, policy) if seen.gain > 0 else 1.0)
    strength = seen.gain / unit  # in standard errors
    floor = -1.0 if tie else policy.gate * seen.n
    bar = t_quantile(1 - policy.level, history.noise.dof)
    passed = seen.n > 1 and strength > bar
    if not passed and strength < floor:
        return _verdict(history, "revert", f"{strength:+.1f} standard errors, under {floor:.1f}{_drift(history)}", seen)
    if _may_top_up(history, seen.m, policy.incumbent_runs):
        return MeasureNext(history.incumbent, "incumbent", "the present best has too few runs to be compared with")
    if passed or (tie and seen.n >= policy.max_runs):
        return MeasureNext(history.candidate, "reserve", "decided; a run that the decision has not seen tells the gain")
    if seen.n < policy.max_runs:
        return MeasureNext(history.candidate, "confirm", f"{strength:+.1f} standard errors: promising")
    return _verdict(history, "revert", f"{strength:+.1f} standard errors, not over {bar:.1f}{_drift(history)}", seen)


def _reserved(history: History, seen: Comparison) -> Verdict | MeasureNext:
    """Kept. The gain is told by one run on each side that no decision has looked at, so luck that won is not in it."""
    own = any(run.role == "confirm" for run in history.incumbent_runs)  # it has a reserved run since it was kept
    spare = [run.value for run in history.incumbent_runs if run.role == "reserve"][int(own) :]
    fresh = [value for value in spare if value is not None]
    if not fresh and len(spare) <= RETRIES:
        return MeasureNext(history.incumbent, "reserve", "decided; the gain is told against a fresh run")
    after = _values(run for run in history.candidate_runs if run.role == "reserve")
    told = _compare(history, fresh or _values(history.incumbent_runs), after)
    assert told is not None
    reason = f"better in {seen.n} runs" if seen.gain > 0 else _simpler(history)
    verdict = _verdict(history, "keep", f"{reason}; the gain is that of reserved runs{_drift(history)}", told)
    clean = _values(new_incumbent_runs(history.candidate_runs))
    return replace(verdict, value=fmean(clean), n_before=seen.m)


def _sides(history: History) -> tuple[list[float], list[float]]:
    """The values that decide: (incumbent's since the machine last drifted, candidate's)."""
    values = _values(history.incumbent_runs)
    recent = values[last_shift(values, history.noise) :]
    return recent, _values(run for run in history.candidate_runs if run.role != "reserve")


def _drift(history: History) -> str:
    """What to say of a drift that was corrected for by leaving the older runs of the incumbent out."""
    values = _values(history.incumbent_runs)
    start = last_shift(values, history.noise)
    if not start:
        return ""
    return f"; the machine drifted by {fmean(values[start:]) - fmean(values[:start]):+.4g}: older runs do not count"


def _may_top_up(history: History, counting: int, wanted: int) -> bool:
    """Whether another run of the incumbent is worth its cost: not if it fails or drifts whenever it is run."""
    failures = sum(run.value is None for run in history.incumbent_runs)
    return counting < wanted and failures <= RETRIES and len(history.incumbent_runs) < 3 * wanted


def _memory_factor(history: History, policy: Policy) -> float:
    """Much more memory needs twice the gain."""
    after, before = (
        max((run.peak_memory_gb or 0.0 for run in runs), default=0.0)
        for runs in (history.candidate_runs, history.incumbent_runs)
    )
    return 2.0 if before > 0 and after > before * (1 + policy.memory_share) else 1.0


def _simpler(history: History) -> str:
    return f"a tie within the noise, and {history.simpler_by} syntax nodes simpler"


def undone(runs: Sequence[Measurement], noise: Noise, reason: str) -> Verdict:
    """Reverted for a reason that is not in the values."""
    values = _values(run for run in runs if run.role != "test")
    return Verdict("revert", fmean(values) if values else None, None, None, None, len(values), 0, noise.dof, reason)


def _values(runs: Iterable[Measurement]) -> list[float]:
    return [run.value for run in runs if run.value is not None]


def _compare(history: History, before: Sequence[float], after: Sequence[float]) -> Comparison | None:
    """None where one side has no value."""
    if not before or not after:
        return None
    sign = 1.0 if history.goal == "minimize" else -1.0
    se = (history.noise.sd or 0.0) * math.sqrt(1 / len(after) + 1 / len(before))
    return Comparison(sign * (fmean(before) - fmean(after)), se, len(after), len(before))


def _verdict(history: History, decision: Decision, reason: str, seen: Comparison | None) -> Verdict:
    values, before = _values(history.candidate_runs), _values(history.incumbent_runs)
    return Verdict(
        decision=decision,
        value=fmean(values) if values else None,
        best_before=fmean(before) if before else None,
        gain=seen.gain if seen else None,
        gain_se=seen.se if seen and history.noise.sd is not None else None,
        n=len(values),
        n_before=seen.m if seen else len(before),
        dof=history.noise.dof,
        reason=reason,
    )
