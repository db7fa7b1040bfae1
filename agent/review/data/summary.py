"""The figures of a session that the terminal, ``--json``, the report and notifications share."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import fmean

from agent.judge.gain import Gain, added, gain_of, gain_of_runs, on_shared_devices, without_screening_run
from agent.judge.noise import noise_of
from agent.ledger.state import State
from agent.review.data.times import Stopped, gpu_seconds, phases, split, stopped_of, wall_seconds
from agent.types import Measurement, on_validation, values_of


@dataclass(frozen=True)
class Estimate:
    """The mean value over ``n`` runs."""

    value: float
    n: int


@dataclass(frozen=True)
class Summary:
    """Figures of a session. Gains are positive when better, whatever the goal; None means not measured."""

    tag: str
    metric: str
    goal: str
    self_reported: bool
    planned: int | None  # number of trials to reach
    trials: int  # finished trials: judged, or ended before they ran
    kept: int
    reverted: int  # measured or stopped, and not better
    failures: Mapping[str, int]  # trials by status of failure, most frequent first
    stopped: Stopped  # runs that were stopped
    baseline: Estimate | None  # on the types of device on which ``best`` was measured
    best: Estimate | None  # the commit of the branch's head
    gain: float | None  # of ``best`` over ``baseline``; None while nothing was kept
    gain_se: float | None
    estimated: bool  # whether gain and best value are the sum of the gains that ``confirm`` reported, not means of runs
    test_baseline: float | None
    test_best: float | None
    test_gain: float | None
    test_gain_se: float | None
    test_problem: str  # why the test split of baseline or best was scored without a value; "" if it was not
    noise_sd: float | None  # pooled standard deviation between runs of one commit on one device type; 0: a fixed seed
    noise_dof: int
    repaired: int  # trials whose edit failed before training, and ran after a repair
    runs: int  # on the validation split
    seconds: Mapping[str, float]  # by phase, over all runs
    gpu_seconds: float  # of all runs on GPUs: start-up, training and scoring
    wall_seconds: float  # without the time in which no session ran
    split: Mapping[str, float]  # ``wall_seconds`` by purpose

    @property
    def failed(self) -> int:
        return sum(self.failures.values())


def summarize(state: State) -> Summary:
    session, noise = state.session, noise_of(state)
    goal = session.goal
    measured = [run for runs in state.runs.values() for run in runs]
    best_runs = state.runs.get(state.incumbent, ())
    before, after = on_shared_devices(state.baseline_runs, best_runs)
    gain = gain_of_runs(estimating(before), estimating(after), goal, noise) if state.kept else None
    start, end = estimate(before), estimate(after)
    reported = reported_gain(state)
    if reported is not None and start is not None:  # the branch is worth its baseline and the reported gains
        gain, end = reported, Estimate(added(start.value, reported.value, goal), reported.n)
    tests = [test_value(runs) for runs in (state.baseline_runs, best_runs)]
    scored = [[value] if value is not None else [] for value in tests]
    test_gain = gain_of(scored[0], scored[1], goal, noise) if state.kept else None
    planned, spent = session.trials, phases(measured)
    return Summary(
        tag=session.tag,
        metric=session.metric,
        goal=goal,
        self_reported=session.self_reported or any(run.self_reported for run in measured),
        planned=planned if planned and planned >= len(state.finished) else None,  # a resume may go on beyond it
        trials=len(state.finished),
        kept=len(state.kept),
        reverted=sum(1 for r in state.finished if not r.failed and r.decision != "keep"),
        failures=dict(Counter(r.status for r in state.finished if r.failed).most_common()),
        stopped=stopped_of(state),
        baseline=start,
        best=end,
        gain=gain.value if gain else None,
        gain_se=(gain.se or None) if gain else None,
        estimated=reported is not None,
        test_baseline=tests[0],
        test_best=tests[1],
        test_gain=test_gain.value if test_gain else None,
        test_gain_se=test_gain.se if test_gain else None,
        test_problem=test_problem(state.baseline_runs) or test_problem(best_runs),
        noise_sd=noise.sd,
        noise_dof=noise.dof,
        repaired=sum(1 for r in state.finished if r.status == "ok" and r.repairs),
        runs=len(on_validation(measured)),
        seconds=spent,
        gpu_seconds=gpu_seconds(state),
        wall_seconds=wall_seconds(state),
        split=split(state, spent),
    )


def estimating(runs: Iterable[Measurement]) -> tuple[Measurement, ...]:
    """Return the runs on the validation split that estimate a commit's value."""
    return without_screening_run(on_validation(runs))


def estimate(runs: Iterable[Measurement]) -> Estimate | None:
    """Return the mean value of a commit's runs; None without a value."""
    values = values_of(estimating(runs))
    return Estimate(fmean(values), len(values)) if values else None


def test_value(runs: Iterable[Measurement]) -> float | None:
    """Return the latest value on the test split."""
    found = [run.value for run in runs if run.role == "test" and run.value is not None]
    return found[-1] if found else None


def test_problem(runs: Iterable[Measurement]) -> str:
    """Return why a commit's test split was scored without a value; "" if it has a value or was not scored."""
    tried = [run for run in runs if run.role == "test"]
    return "" if not tried or any(run.value is not None for run in tried) else tried[-1].reason


def reported_gain(state: State) -> Gain | None:
    """Return the sum of the gains of all kept edits if each is a posterior mean (policy ``confirm``); else None."""
    verdicts = [record.verdict for record in state.kept if record.verdict is not None]
    if not verdicts or any(verdict.probability is None for verdict in verdicts):
        return None
    se = math.hypot(*(verdict.gain_se or 0.0 for verdict in verdicts))
    runs = verdicts[-1].n
    return Gain(math.fsum(verdict.gain or 0.0 for verdict in verdicts), se, runs, verdicts[0].n_before)
