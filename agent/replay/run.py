"""Runs a checked plan: of ``overnight replay`` or of ``overnight promote``."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from functools import cached_property

from agent.ledger.events import SessionStarted
from agent.ledger.journal import read
from agent.ledger.state import fold
from agent.replay.ablation import BUILT, without
from agent.replay.exact import differences
from agent.replay.outcomes import Result, result_in, result_of
from agent.replay.plan import Comparison, Cost, Plan, cost_of, runs_left
from agent.replay.progress import ReplayProgress
from agent.replay.steps import Step
from agent.replay.work import Work, working
from agent.repo.repo import Repo
from agent.rundir.directory import RunDirectory
from agent.workers.runtime import Workplace

Together = Callable[[str, Sequence[Step]], Comparison]  # from the head of the edits that hold, and their steps


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A plan with the places where it runs. Nothing has been run yet.

    Raises:
        UsageError: runs at the same time would influence each other's values.
    """

    plan: Plan
    steps: Sequence[Step]  # of the branch, the baseline first
    places: Sequence[Workplace]  # one for each stage
    together: Sequence[Together | None]  # for each stage, if the edits that hold are measured together there
    directory: RunDirectory
    seconds: Sequence[float] = ()  # of one run in each stage: see ``cost_of``
    max_hours: float | None = None

    def __post_init__(self) -> None:
        for place in self.places if not self.places[0].settings.ray_address else ():
            place.check_beside(place.settings.workers)

    @property
    def repo(self) -> Repo:
        return self.places[0].repo

    @cached_property
    def cost(self) -> Cost:
        """What an earlier attempt has left."""
        done = fold(read(self.directory.ledger), str(self.directory.ledger)).runs
        return cost_of(self.plan, done, self.places[0].settings.workers, self.seconds)


def run(prepared: Prepared, view: ReplayProgress) -> Result:
    """Make the runs that are missing; an interrupted replay gives an incomplete result.

    Raises:
        UsageError: the directory holds another replay.
        EnvironmentProblem: the machine failed several times in a row.
    """
    directory, plan = prepared.directory, prepared.plan
    with working(directory, _first_event(prepared), view, prepared.max_hours) as work:
        _measure(plan, prepared, work)
        grown = _with_together(prepared, work.result(plan))
        _measure(grown, prepared, work)
        minimal = work.result(grown).minimal
        if minimal is not None and minimal.outcome == "reproduced":
            prepared.repo.refs.point(f"refs/heads/{plan.minimal_branch}", minimal.edit.commit)
    state = fold(read(directory.ledger), str(directory.ledger))
    result = result_in(state) or result_of(plan, state.runs)
    differs = differences(plan.recorded, plan.folder, state.runs, directory.path) if plan.exact else ()
    return dataclasses.replace(result, differs=tuple(differs))


def _first_event(prepared: Prepared) -> SessionStarted:
    plan, place = prepared.plan, prepared.places[0]
    return SessionStarted(
        kind=plan.kind,
        tag=prepared.directory.tag,
        metric=plan.metric,
        goal=plan.goal,
        sandbox=place.sandbox.name,
        device=place.device.uuid or place.device.kind,
        self_reported=plan.self_reported,
        what=plan.what,
        baseline=plan.commits[0],
        commits=plan.commits,
        budget=str(place.target.budget),
        data=place.data_hash,
        exact=plan.exact,
    )


def _measure(plan: Plan, prepared: Prepared, work: Work) -> None:
    """Make the missing runs of every undecided comparison."""
    work.record(plan)
    for number, (stage, place) in enumerate(zip(plan.stages, prepared.places, strict=True)):
        if runs_left(plan, work.result(plan).undecided[number], work.ledger.state.runs):
            for step in (side for comparison in stage.comparisons for side in comparison.sides if side.number >= BUILT):
                name = f"refs/autoresearch/{prepared.directory.tag}/{step.number:04d}"  # git keeps commits with refs
                prepared.repo.refs.point(name, step.commit)
            work.run(plan, number, place)


def _with_together(prepared: Prepared, result: Result) -> Plan:
    """The plan with the edits that hold, together; unchanged where all or none of them hold, or some were not asked."""
    plan, steps, out = result.plan, prepared.steps, result.dropped
    asked = {finding.edit.number for finding in result.found[-1]} >= {step.number for step in steps[1:]}
    if not asked or not 0 < len(out) < len(steps) - 1:
        return plan
    head = without(prepared.repo, steps, out, prepared.places[0].target.path)
    if head is None:
        return plan
    kept = [step for step in steps if step.number not in out]
    stages = [
        dataclasses.replace(stage, comparisons=(*stage.comparisons, together(head, kept))) if together else stage
        for stage, together in zip(plan.stages, prepared.together, strict=True)
    ]
    return dataclasses.replace(plan, stages=tuple(stages))
