"""What a replay runs: a frozen plan of steps, each with the seeds and schedules of its runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from agent.replay.exact import trace_of, traced
from agent.replay.steps import Step
from agent.trial.seeds import session_seed
from agent.types import Goal, Measurement

FIRST = 1_000_000  # index of the first seed: they differ from those of all recorded runs; all steps share them


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
    source: Path | None = None  # directory of the recorded run, which holds its schedule traces
    seed: int = 0
    self_reported: bool = False

    @property
    def jobs(self) -> tuple[Job, ...]:
        return tuple(map(self.job, self.steps))

    @property
    def ablation_jobs(self) -> tuple[Job, ...]:
        return tuple(self.job(cut.without) for cut in self.cuts if cut.without)

    def job(self, step: Step) -> Job:
        if self.exact:
            recorded = traced(step, self.source)[: self.rounds]
            return Job(step, tuple(Run(run.seed, trace_of(self.source, run)) for run in recorded))
        return Job(step, tuple(Run(session_seed(self.seed, FIRST + k)) for k in range(self.rounds)))


@dataclass(frozen=True)
class Cost:
    """What is left to run."""

    runs: int  # at most: a commit that fails is run once
    commits: int
    seconds: float | None  # estimated from recorded runs; None if no recorded run has this budget


def cost_of(plan: Plan, done: Mapping[str, Sequence[Measurement]], workers: int) -> Cost:
    """Estimate what is left of a plan; ``done`` are the runs of an earlier attempt, by commit."""
    jobs = {job.step.commit: job for job in (*plan.jobs, *plan.ablation_jobs)}  # a cut may be an earlier commit
    left = [max(0, len(job.runs) - len(done.get(commit, ()))) for commit, job in jobs.items()]
    recorded = [run for step in plan.steps for run in step.runs] if plan.same_budget else []
    seconds = [sum(run.seconds.values()) for run in (*recorded, *(run for runs in done.values() for run in runs))]
    total = sum(left) * fmean(seconds) / workers if seconds else None
    return Cost(sum(left), sum(1 for count in left if count), total)
