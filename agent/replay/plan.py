"""What a replay or promotion measures: a frozen plan of comparisons, each between two commits at one setting."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

import msgspec

from agent.judge.gain import difference
from agent.ledger.state import State
from agent.replay.exact import traced
from agent.replay.steps import TOGETHER, WHOLE, Step
from agent.target import Target
from agent.trial.seeds import session_seed
from agent.types import Goal, Measurement, Value

# index of the first seed: no recorded run had it; all commits share the seeds
FIRST = {"replay": 1_000_000, "promote": 2_000_000}
OBSTACLE = "later edits build on it, or nothing is left of it"
Runs = Mapping[str, Sequence[Measurement]]  # by commit
Question = Literal["steps", "cuts", "setting"]


@dataclass(frozen=True)
class Comparison:
    """What does ``after`` gain over ``before``?"""

    edit: Step  # as recorded; number WHOLE is the whole branch, TOGETHER the edits that hold, together
    before: Step
    after: Step
    obstacle: str = ""  # why it cannot be measured

    @property
    def sides(self) -> tuple[Step, ...]:
        return () if self.obstacle else (self.before, self.after)


@dataclass(frozen=True)
class Setting:
    """A size to promote to."""

    budget: str
    values: Mapping[str, Value] = field(default_factory=dict)  # of the hyperparameter block

    def __str__(self) -> str:
        return ", ".join([*(f"{name}={value}" for name, value in self.values.items()), self.budget])


@dataclass(frozen=True)
class Stage:
    """Comparisons at one setting that ask the same question.

    ``steps``: does each edit of a replay gain what is recorded? ``cuts``: does the branch need each edit? ``setting``:
    does each edit gain at another setting?
    """

    setting: Setting
    comparisons: tuple[Comparison, ...]
    question: Question = "setting"


@dataclass(frozen=True)
class Plan:
    """Everything that a replay or promotion measures, and how the results are compared."""

    what: str  # tag of the run, or the branch or range
    rounds: int  # runs of each commit; of a promotion, at most
    goal: Goal
    metric: str
    budget: str  # of a replay; of the session that is promoted
    stages: tuple[Stage, ...] = ()
    exact: bool = False  # follow the recorded seeds and schedules
    ablate: bool = False
    same_budget: bool = True  # the recorded runs have this budget, so their noise and their seconds count
    source: str = ""  # directory of the recorded run, which holds its schedule traces; "" without one
    seed: int = 0
    self_reported: bool = False

    @property
    def kind(self) -> str:
        return "promote" if self.stages[0].question == "setting" else "replay"

    @property
    def minimal_branch(self) -> str:
        """``autoresearch/TAG-minimal``, after the last part of what is replayed."""
        return f"autoresearch/{self.what.rpartition('..')[2].rpartition('/')[2] or 'branch'}-minimal"

    @property
    def recorded(self) -> tuple[Step, ...]:
        """The steps of a replay with their recorded runs, the baseline first."""
        return tuple(c.after for c in self.stages[0].comparisons if c.edit.number >= 0)

    @property
    def commits(self) -> tuple[str, ...]:
        """They identify the work, with the baseline first."""
        if self.kind == "replay":
            return tuple(step.commit for step in self.recorded)
        found = [comparison for stage in self.stages for comparison in stage.comparisons]
        return (found[0].before.commit, *(comparison.after.commit for comparison in found))

    def runs_of(self, step: Step) -> list[tuple[int, Path | None]]:
        """All planned runs of a commit: the seed, and the recorded schedule that replaces the clock."""
        if self.exact:
            return [(run.seed, schedule) for run, schedule in traced(step, Path(self.source))[: self.rounds]]
        return [(session_seed(self.seed, FIRST[self.kind] + k), None) for k in range(self.rounds)]


def plan_for(target: Target, settings: Mapping[str, Any], **own: Any) -> Plan:
    """The plan to run a target under settings; ``own``: the fields that do not follow from them."""
    return Plan(
        goal=target.goal, metric=target.metric, budget=str(target.budget), seed=int(settings.get("seed", 0)),
        self_reported=target.score == "stdout", **own,
    )  # fmt: skip


def stages_of_replay(
    steps: Sequence[Step], goal: Goal, budget: str, cuts: Sequence[Comparison], exact: bool = False
) -> tuple[Stage, ...]:
    """Each step against the one before it and the head against the baseline; then the cuts, if there are any."""
    bare = [step.bare for step in steps]
    found = [Comparison(bare[k], bare[max(k - 1, 0)] if k else step, step) for k, step in enumerate(steps)]
    if len(steps) > 1 and not exact:
        first, last = bare[0], bare[-1]
        gain = None
        if first.recorded is not None and last.recorded is not None:
            gain = difference(first.recorded, last.recorded, goal)
        whole = replace(last, number=WHOLE, subject="the whole branch", gain=gain, gain_se=None)
        found.append(Comparison(whole, first, last))
    stages = (Stage(Setting(budget), tuple(found), "steps"),)
    return (*stages, Stage(Setting(budget), tuple(cuts), "cuts")) if cuts else stages


def planned(state: State) -> Plan | None:
    """The plan in a ledger; None if it holds none."""
    try:
        return None if state.plan is None else msgspec.convert(_with_stages(state.plan), Plan)
    except (msgspec.ValidationError, LookupError):
        return None


def _with_stages(plan: Mapping[str, Any]) -> Mapping[str, Any]:
    """A plan of version 0.1 listed the steps and cuts of a replay in place of comparisons."""
    if "steps" not in plan:
        return plan
    steps = msgspec.convert(plan["steps"], tuple[Step, ...])
    head, cuts = steps[-1], []
    for cut in plan["cuts"]:
        without = msgspec.convert(cut["without"] or head, Step)
        cuts.append(Comparison(msgspec.convert(cut["edit"], Step), without, head, "" if cut["without"] else OBSTACLE))
    if plan["rest"]:
        rest = msgspec.convert(plan["rest"], Step)
        cuts.append(Comparison(replace(rest, number=TOGETHER), head, rest))
    return {**plan, "stages": stages_of_replay(steps, plan["goal"], plan["budget"], cuts, plan["exact"])}


@dataclass(frozen=True)
class Cost:
    """What is left to run."""

    runs: int  # at most: a commit that fails is run once
    commits: int
    seconds: float  # estimated; NaN if the length of a run is unknown


def cost_of(plan: Plan, done: Runs, workers: int, seconds: Sequence[float] = ()) -> Cost:
    """What is left of a plan.

    Args:
        plan: What is run.
        done: Runs of an earlier attempt.
        workers: Runs at the same time.
        seconds: Of one run in each stage; NaN: unknown. By default the mean of the runs that are done, and of the
            recorded runs under the same budget.
    """
    recorded = [step.runs for step in plan.recorded] if plan.same_budget else []
    took = [sum(run.seconds.values()) for runs in (*recorded, *done.values()) for run in runs]
    usual = fmean(took) if took else math.nan
    left: dict[str, int] = {}
    total = 0.0
    for stage, each in zip(plan.stages, seconds or [usual] * len(plan.stages), strict=True):
        new = {c: n for c, n in runs_left(plan, sides_of(stage.comparisons), done).items() if c not in left}
        total += sum(runs * each for runs in new.values())
        left |= new
    return Cost(sum(left.values()), len(left), total / workers)


def sides_of(comparisons: Iterable[Comparison]) -> list[Step]:
    """The commits that are run, each of them once."""
    steps: dict[str, Step] = {}
    for step in (step for comparison in comparisons for step in comparison.sides):
        steps.setdefault(step.commit, step)
    return list(steps.values())


def runs_left(plan: Plan, steps: Iterable[Step], done: Runs) -> dict[str, int]:
    """Missing runs by commit; a commit that failed is not run again."""
    left = {}
    for step in steps:
        found = done.get(step.commit, ())
        missing = len(plan.runs_of(step)) - len(found)
        if missing > 0 and all(run.value is not None for run in found):
            left[step.commit] = missing
    return left
