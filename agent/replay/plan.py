"""What a replay runs: a frozen plan of steps, each with the seeds and schedules of its runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TypeVar

import msgspec

from agent.ledger.state import State
from agent.replay.exact import trace_of, traced
from agent.replay.steps import Step
from agent.trial.seeds import session_seed
from agent.types import Goal, Measurement

FIRST = 1_000_000  # index of the first seed: they differ from those of all recorded runs; all steps share them
Runs = Mapping[str, Sequence[Measurement]]  # by commit
T = TypeVar("T")


@dataclass(frozen=True)
class Run:
    """One planned run of a commit."""

    seed: int
    schedule: Path | None = None  # recorded trace that the run follows instead of the clock


@dataclass(frozen=True)
class Job:
    """A step with its planned runs."""

    step: Step
    runs: tuple[Run, ...]


@dataclass(frozen=True)
class Cut:
    """A kept edit and the head of the branch without it."""

    edit: Step
    without: Step | None  # None if the edit cannot be taken out: later edits build on it


@dataclass(frozen=True)
class Plan:
    """Everything that a replay measures, and how the results are compared."""

    what: str  # tag of the replayed run, or the branch or range
    steps: tuple[Step, ...]  # the baseline first
    rounds: int  # runs of each step
    goal: Goal
    metric: str
    path: str  # of the edited file
    budget: str
    exact: bool = False  # follow the recorded seeds and schedules
    ablate: bool = False
    cuts: tuple[Cut, ...] = ()  # one for each kept edit, if ``ablate`` is set
    same_budget: bool = True  # the recorded runs have this budget, so their noise and their seconds count
    rest: Step | None = None  # the branch without the edits that do not hold, once they are known
    source: str = ""  # directory of the recorded run, which holds its schedule traces; "" without one
    seed: int = 0
    self_reported: bool = False

    @property
    def jobs(self) -> tuple[Job, ...]:
        return tuple(map(self.job, self.steps))

    @property
    def all_jobs(self) -> tuple[Job, ...]:
        """The jobs of the steps, of the cuts and of the branch without the edits that do not hold."""
        more = [*(cut.without for cut in self.cuts), self.rest]
        return (*self.jobs, *(self.job(step) for step in more if step))

    def job(self, step: Step) -> Job:
        if self.exact:
            recorded = traced(step, self.folder)[: self.rounds]
            return Job(step, tuple(Run(run.seed, trace_of(self.folder, run)) for run in recorded))
        return Job(step, tuple(Run(session_seed(self.seed, FIRST + k)) for k in range(self.rounds)))

    @property
    def folder(self) -> Path | None:
        return Path(self.source) if self.source else None


def planned(state: State, kind: type[T]) -> T | None:
    """The plan in a ledger; None if it holds none of this kind."""
    try:
        return None if state.plan is None else msgspec.convert(state.plan, kind)
    except msgspec.ValidationError:
        return None


@dataclass(frozen=True)
class Cost:
    """What is left to run."""

    runs: int  # at most: a commit that fails is run once
    commits: int
    seconds: float | None  # estimated from recorded runs; None if no recorded run has this budget


def cost_of(plan: Plan, done: Runs, workers: int) -> Cost:
    """Estimate what is left of a plan; ``done`` are the runs of an earlier attempt."""
    recorded = [run for step in plan.steps for run in step.runs] if plan.same_budget else []
    seconds = [sum(run.seconds.values()) for run in (*recorded, *(run for runs in done.values() for run in runs))]
    each = fmean(seconds) if seconds else None
    return total_cost([(job, each) for job in plan.all_jobs], done, workers)


def total_cost(jobs: Sequence[tuple[Job, float | None]], done: Runs, workers: int) -> Cost:
    """What is left of some jobs, each with the seconds of one run."""
    each = {job.step.commit: seconds for job, seconds in jobs}
    left = {commit: runs for commit, runs in runs_left((job for job, _ in jobs), done).items() if runs}
    known = [runs * seconds for commit, runs in left.items() if (seconds := each[commit]) is not None]
    return Cost(sum(left.values()), len(left), sum(known) / workers if len(known) == len(left) else None)


def runs_left(jobs: Iterable[Job], done: Runs) -> dict[str, int]:
    """Missing runs by commit; jobs may share a commit. A commit that failed is not run again."""
    left = {}
    for job in jobs:
        found = done.get(job.step.commit, ())
        failed = any(run.value is None for run in found)
        left[job.step.commit] = 0 if failed else max(0, len(job.runs) - len(found))
    return left
