"""Keep or revert: a pure function of what was measured.

``greedy`` keeps any lower value, as existing tools do: it keeps noise. ``margin`` keeps a gain that exceeds what noise
alone brings once in ``1 / alpha`` edits without effect: with σ estimated by s on ν degrees of freedom, and the
incumbent's mean an estimate over m runs too, the bar is t(1 - alpha, ν) · s · sqrt(1/n + 1/m).
"""

from __future__ import annotations

import difflib
import math
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

from agent.errors import UsageError
from agent.noise import Noise, t_quantile
from agent.types import Goal, Measurement, Role, Verdict

NAMES = ("margin", "greedy")
INCUMBENT_RUNS = 3  # a bar over a single run of the incumbent would be as noisy as that run
RETRIES = 2  # of an incumbent that fails when it is measured again


@dataclass(frozen=True)
class Policy:
    """How much evidence an edit needs."""

    name: str = "margin"
    alpha: float = 0.05  # chance that one edit without effect is kept
    keep_simpler: bool = False  # ties within the noise are kept when the syntax tree is smaller
    memory_share: float = 0.25  # growth of peak memory that needs twice the gain


@dataclass(frozen=True)
class History:
    """All that a verdict may depend on."""

    goal: Goal
    incumbent: str
    candidate: str
    incumbent_runs: tuple[Measurement, ...]
    candidate_runs: tuple[Measurement, ...]
    noise: Noise
    simpler_by: int = 0  # nodes of the syntax tree that the candidate saves


@dataclass(frozen=True)
class MeasureNext:
    """The judge wants to see this commit once more before it decides."""

    commit: str
    role: Role
    reason: str


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


def new_incumbent_runs(runs: tuple[Measurement, ...]) -> tuple[Measurement, ...]:
    """The runs that count for a commit once it was kept: without the lucky one that got it there, if possible."""
    later = tuple(run for run in runs if run.role != "screen")
    return later if any(run.value is not None for run in later) else runs


def judge(history: History, policy: Policy) -> Verdict | MeasureNext:
    """The verdict, or the measurement that is missing for one.

    Raises:
        UsageError: the policy needs the noise, and nothing was measured twice.
    """
    if not history.candidate_runs:
        return MeasureNext(history.candidate, "screen", "first run")
    failed = next((run for run in history.candidate_runs if run.value is None), None)
    before = [run.value for run in history.incumbent_runs if run.value is not None]
    if failed is not None:
        return _verdict(history, "revert", f"{failed.status}: {failed.reason}" if failed.reason else failed.status)
    if not before:
        return MeasureNext(history.incumbent, "incumbent", "the present best has no value yet")
    if policy.name == "greedy":
        better = _gain(history) > 0
        return _verdict(history, "keep" if better else "revert", "lower" if better else "not lower")
    return _margin(history, policy, len(before))


def _margin(history: History, policy: Policy, runs_before: int) -> Verdict | MeasureNext:
    noise = history.noise
    if noise.sd is None:
        raise UsageError("the noise is not known: no commit has two runs that worked. Use --calibrate 3 or more.")
    gain = _gain(history)
    bar = t_quantile(1 - policy.alpha, noise.dof) * _standard_error(history) * _memory_factor(history, policy)
    if gain > bar or (noise.sd == 0 and gain > 0):
        failures = len(history.incumbent_runs) - runs_before
        if runs_before < INCUMBENT_RUNS and noise.sd > 0 and failures <= RETRIES:
            return MeasureNext(history.incumbent, "incumbent", "the present best has too few runs to be compared with")
        return _verdict(history, "keep", f"gain over the bar of {bar:.4g}")
    if policy.keep_simpler and history.simpler_by > 0 and gain > -_standard_error(history):
        return _verdict(history, "keep", f"a tie within the noise, and {history.simpler_by} syntax nodes simpler")
    return _verdict(history, "revert", f"gain not over the bar of {bar:.4g}")


def _memory_factor(history: History, policy: Policy) -> float:
    """Much more memory needs twice the gain."""
    after, before = (
        max((run.peak_memory_gb or 0.0 for run in runs), default=0.0)
        for runs in (history.candidate_runs, history.incumbent_runs)
    )
    return 2.0 if before > 0 and after > before * (1 + policy.memory_share) else 1.0


def _values(runs: tuple[Measurement, ...]) -> list[float]:
    return [run.value for run in runs if run.value is not None]


def _gain(history: History) -> float:
    sign = 1.0 if history.goal == "minimize" else -1.0
    return sign * (fmean(_values(history.incumbent_runs)) - fmean(_values(history.candidate_runs)))


def _standard_error(history: History) -> float:
    n, m = len(_values(history.candidate_runs)), len(_values(history.incumbent_runs))
    return (history.noise.sd or 0.0) * math.sqrt(1 / n + 1 / m)


def _verdict(history: History, decision: Any, reason: str) -> Verdict:
    values, before = _values(history.candidate_runs), _values(history.incumbent_runs)
    both = bool(values and before)
    return Verdict(
        decision=decision,
        value=fmean(values) if values else None,
        best_before=fmean(before) if before else None,
        gain=_gain(history) if both else None,
        gain_se=_standard_error(history) if both and history.noise.sd is not None else None,
        n=len(values),
        n_before=len(before),
        dof=history.noise.dof,
        reason=reason,
    )
