"""The figures of a night, from its state: what the terminal, the report and ``status --json`` all say."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from statistics import fmean

from agent.judge.noise import pooled_noise
from agent.ledger.state import State
from agent.types import Measurement, Record


@dataclass(frozen=True)
class Estimate:
    """A mean over ``n`` runs."""

    value: float
    n: int


@dataclass(frozen=True)
class Summary:
    """What a night came to. Gains are positive when better, whatever the goal; None where nothing was measured."""

    tag: str
    metric: str
    goal: str
    self_reported: bool
    planned: int | None
    trials: int  # finished: judged, or ended before they ran
    kept: int
    reverted: int  # measured, and not better
    failures: Mapping[str, int]  # by status, most frequent first
    baseline: Estimate | None
    best: Estimate | None  # of the commit that the branch stands on
    gain: float | None
    gain_se: float | None
    test_baseline: float | None
    test_best: float | None
    test_gain: float | None
    test_gain_se: float | None
    test_problem: str  # why the baseline or the best has no value on the test split, if that was tried; or ""
    noise_sd: float | None  # between runs of one commit, pooled
    noise_dof: int
    runs: int
    seconds: Mapping[str, float]  # per phase, over all runs
    wall_seconds: float
    split: Mapping[str, float]  # seconds by what they were spent on, model and overhead included

    @property
    def failed(self) -> int:
        return sum(self.failures.values())


def summarize(state: State) -> Summary:
    session = state.session
    goal = session.goal
    measured = [run for runs in state.runs.values() for run in runs]
    spent = phases(measured)
    planned = session.trials
    noise = pooled_noise(values_of(runs) for runs in state.runs.values())
    sd = noise.sd
    baseline, best = estimate(state.baseline_runs), estimate(state.runs.get(state.incumbent, ()))
    test_baseline, test_best = test_value(state.baseline_runs), test_value(state.runs.get(state.incumbent, ()))
    gained = difference(baseline.value if baseline else None, best.value if best else None, goal)
    moved = bool(state.kept)
    return Summary(
        tag=session.tag,
        metric=session.metric,
        goal=goal,
        self_reported=session.self_reported or any(run.self_reported for run in measured),
        planned=planned if planned and planned >= len(state.finished) else None,  # passed by a resume with a later end
        trials=len(state.finished),
        kept=len(state.kept),
        reverted=sum(1 for r in state.finished if r.status == "ok" and r.decision != "keep"),
        failures=dict(Counter(r.status for r in state.finished if r.status != "ok").most_common()),
        baseline=baseline,
        best=best,
        gain=gained if moved else None,
        gain_se=_se(sd, baseline, best) if moved else None,
        test_baseline=test_baseline,
        test_best=test_best,
        test_gain=difference(test_baseline, test_best, goal) if moved else None,
        test_gain_se=sd * math.sqrt(2) if moved and sd is not None else None,  # one checkpoint on each side
        test_problem=test_problem(state.baseline_runs) or test_problem(state.runs.get(state.incumbent, ())),
        noise_sd=sd,
        noise_dof=noise.dof,
        runs=sum(1 for run in measured if run.role != "test"),
        seconds=spent,
        wall_seconds=wall_seconds(state),
        split=split(state, spent),
    )


def wall_seconds(state: State) -> float:
    """From the first event to the last, without the time in which no session was at work."""
    began = state.last_time if state.began is None else state.began
    return max(0.0, state.last_time - began - state.away)


def split(state: State, spent: Mapping[str, float]) -> dict[str, float]:
    """What the night was spent on, in seconds; the parts add up to ``wall_seconds``, and none is 0.

    Of several workers it is the mean. Overhead is what is left: git, staging, the sandbox, the test split, runs that
    were lost, workers without work.
    """
    workers = state.session.workers or 1
    measured = {phase: seconds / workers for phase, seconds in spent.items()}
    parts = {
        "training": measured.pop("training", 0.0),
        "start-up": measured.pop("startup", 0.0),
        "scoring": measured.pop("scoring", 0.0),
        "waiting for ideas": sum(record.asking for record in state.records),
    }
    parts["overhead"] = max(0.0, wall_seconds(state) - sum(parts.values()))
    return {name: seconds for name, seconds in parts.items() if seconds > 0}


def values_of(runs: Iterable[Measurement]) -> list[float]:
    """Values on the validation split; the test split is apart."""
    return [run.value for run in runs if run.value is not None and run.role != "test"]


def estimate(runs: Iterable[Measurement]) -> Estimate | None:
    """The mean of a commit's runs. The run that got an edit screened in was lucky on average: later runs replace it."""
    runs = list(runs)
    later = values_of(run for run in runs if run.role != "screen")
    values = later or values_of(runs)
    return Estimate(fmean(values), len(values)) if values else None


def test_value(runs: Iterable[Measurement]) -> float | None:
    found = [run.value for run in runs if run.role == "test" and run.value is not None]
    return found[-1] if found else None


def test_problem(runs: Iterable[Measurement]) -> str:
    """Why a commit's test split has no value; "" if it has one, or was never asked."""
    tried = [run for run in runs if run.role == "test"]
    return "" if not tried or any(run.value is not None for run in tried) else tried[-1].reason


def difference(before: float | None, after: float | None, goal: str) -> float | None:
    """How much better ``after`` is."""
    if before is None or after is None:
        return None
    return after - before if goal == "maximize" else before - after


def phases(runs: Iterable[Measurement]) -> dict[str, float]:
    """Seconds per phase."""
    total: defaultdict[str, float] = defaultdict(float)
    for phase, seconds in _spent(runs):
        total[phase] += seconds
    order = ("startup", "training", "scoring", "overhead")
    return {p: total[p] for p in (*order, *sorted(set(total) - set(order))) if p in total}


def cost(record: Record) -> float:
    """Seconds that an attempt's runs took."""
    return sum(seconds for _, seconds in _spent(record.runs))


def _spent(runs: Iterable[Measurement]) -> Iterator[tuple[str, float]]:
    """(phase, seconds). A test score repeats the times of the run whose checkpoint it scored, and is left out."""
    for run in runs:
        if run.role != "test":
            for phase, seconds in run.seconds.items():
                if phase != "done":
                    yield phase, max(0.0, seconds)


def _se(sd: float | None, before: Estimate | None, after: Estimate | None) -> float | None:
    if sd is None or before is None or after is None:
        return None
    return sd * math.sqrt(1 / before.n + 1 / after.n)
