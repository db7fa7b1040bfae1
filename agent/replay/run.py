"""Runs a prepared replay or promotion in its directory, on workers.

Every run is recorded in the ledger, so that a killed replay continues.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import suppress
from functools import cached_property
from pathlib import Path

from agent.errors import EnvironmentProblem, Interrupted, UsageError
from agent.ledger.events import Ended, Lost, Measured, Planned, Resumed, RunStarted, SessionStarted
from agent.ledger.journal import Ledger, read
from agent.ledger.state import RETRIES, fold, lost_in_a_row
from agent.replay.ablation import BUILT, without
from agent.replay.exact import differences
from agent.replay.outcomes import Result, result_in, result_of
from agent.replay.plan import Comparison, Cost, Plan, Runs, cost_of, runs_left
from agent.replay.progress import ReplayProgress
from agent.replay.steps import Step
from agent.repo.repo import Repo
from agent.rundir.directory import RunDirectory
from agent.rundir.stop import Stopper
from agent.trial.order import Order
from agent.trial.outputs import CHECKPOINT
from agent.types import Measurement, to_json
from agent.workers.local import Workers
from agent.workers.runtime import Workplace, find_workers

IDENTITY = ("kind", "what", "baseline", "commits", "budget", "data", "exact")  # cannot change when the work continues
Flying = dict[Future[Measurement], tuple[Step, str]]  # the commit of each run under way, and the folder of its files

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
    directory.path.mkdir(parents=True, exist_ok=True)
    (directory.path / ".gitignore").write_text("*\n")
    with directory.lock(), Ledger(directory.ledger) as ledger:
        _begin(ledger, _first_event(prepared), directory)
        directory.forget_stop()
        stopper = Stopper(directory)
        with stopper.listening(), view, suppress(Interrupted):
            _Work(prepared, ledger, view, stopper, time.monotonic() + 3600 * (prepared.max_hours or math.inf)).do()
            ledger.append(Ended(reason="all runs done"))
        state = ledger.state
    result = result_in(state) or result_of(plan, state.runs)
    differs = differences(plan.recorded, Path(plan.source), state.runs, directory.path) if plan.exact else ()
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


def _begin(ledger: Ledger, event: SessionStarted, directory: RunDirectory) -> None:
    """Write the first event, or check that the ledger belongs to the same work; runs of a dead process are lost."""
    if not ledger.events:
        ledger.append(event)
        return
    state = ledger.state
    if different := [name for name in IDENTITY if getattr(state.session, name) != getattr(event, name)]:
        found = f"{directory.path} holds a {state.session.kind or 'session'} with other {' and '.join(different)}"
        raise UsageError(f"{found}. Name a new one: --name NAME.")
    ledger.append(Resumed(attempt=state.resumed + 1))
    for started in state.started:
        ledger.append(Lost(trial=0, trace=started.trace, reason=f"the {event.kind} was killed"))


@dataclasses.dataclass(frozen=True)
class _Work:
    """Makes runs. All state is in the ledger."""

    prepared: Prepared
    ledger: Ledger
    view: ReplayProgress
    stopper: Stopper
    end: float  # no run starts after this moment of the monotonic clock

    @property
    def done(self) -> Runs:
        return self.ledger.state.runs

    def do(self) -> None:
        """Measure the plan, then the edits that hold together, if only some hold, and make the minimal branch.

        Raises:
            Interrupted: a stop was requested.
            EnvironmentProblem: RETRIES runs in a row were lost to the machine.
        """
        plan = self.prepared.plan
        self._measure(plan)
        grown = _with_together(self.prepared, result_of(plan, self.done))
        self._measure(grown)
        minimal = result_of(grown, self.done).minimal
        if minimal is not None and minimal.outcome == "reproduced":
            self.prepared.repo.refs.point(f"refs/heads/{plan.minimal_branch}", minimal.edit.commit)

    def _measure(self, plan: Plan) -> None:
        """Make the missing runs of every undecided comparison.

        Round k makes the k-th run of every commit before round k + 1 starts, so that a slow drift of the machine
        affects all commits alike.
        """
        directory = self.prepared.directory
        if (data := to_json(plan)) != self.ledger.state.plan:
            self.ledger.append(Planned(plan=data))  # watchers need nothing but the ledger
        for number, (stage, place) in enumerate(zip(plan.stages, self.prepared.places, strict=True)):
            if not runs_left(plan, result_of(plan, self.done).undecided[number], self.done):
                continue
            for step in (side for comparison in stage.comparisons for side in comparison.sides if side.number >= BUILT):
                name = f"refs/autoresearch/{directory.tag}/{step.number:04d}"  # git keeps commits with refs
                self.prepared.repo.refs.point(name, step.commit)
            with contextlib.closing(find_workers(place, str(directory.path.resolve()), self.stopper.now)) as workers:
                for k in range(plan.rounds):
                    self._round(workers, plan, result_of(plan, self.done).undecided[number], k)

    def _round(self, workers: Workers, plan: Plan, steps: list[Step], number: int) -> None:
        done = self.done
        left = runs_left(plan, steps, done)
        waiting = deque(step for step in steps if step.commit in left and len(done.get(step.commit, ())) <= number)
        flying: Flying = {}
        try:
            while waiting or flying:
                while waiting and len(flying) < workers.size:
                    self._start(workers, plan, waiting.popleft(), flying)
                for future in wait(flying, return_when=FIRST_COMPLETED).done:
                    step, trace = flying.pop(future)
                    if not self._finish(future, plan, step, trace):
                        waiting.append(step)
        finally:
            for future, (step, trace) in flying.items():  # recorded, so that a continued replay does not repeat them
                with suppress(Interrupted, EnvironmentProblem):
                    self._finish(future, plan, step, trace)

    def _start(self, workers: Workers, plan: Plan, step: Step, flying: Flying) -> None:
        """Start the next run of a commit."""
        if self.stopper.asked() or time.monotonic() > self.end:
            raise Interrupted
        tries = sum(isinstance(event, RunStarted) and event.commit == step.commit for event in self.ledger.events)
        trace = f"trials/{step.number:04d}/run-{tries + 1}"
        number, runs = self._next(step), plan.runs_of(step)
        seed, schedule = runs[number - 1]
        self.view.begins(step, number, len(runs))
        self.ledger.append(RunStarted(trial=0, commit=step.commit, role="replay", seed=seed, trace=trace))
        on = workers.types[0] if len(workers.types) > 1 else ""  # values of two types cannot be compared
        order = Order(0, step.commit, "replay", seed, trace, on=on, schedule=schedule)
        flying[workers.start(order, self.prepared.directory.path / trace, self.view.progress)] = step, trace

    def _finish(self, future: Future[Measurement], plan: Plan, step: Step, trace: str) -> bool:
        """Record the end of a run; False if it was lost to the machine and is to be repeated."""
        try:
            found = future.result()
        except (Interrupted, EnvironmentProblem) as error:
            interrupted = isinstance(error, Interrupted)
            self.ledger.append(Lost(trial=0, trace=trace, reason="interrupted" if interrupted else str(error)))
            if interrupted:
                raise
            if lost_in_a_row(self.ledger.events) >= RETRIES:
                words = f"{RETRIES} runs in a row failed on this machine, the last: {error}"
                raise EnvironmentProblem(words) from error
            return False
        number = self._next(step)
        self.ledger.append(Measured(trial=0, measurement=found))
        self.view.measured(step, number, len(plan.runs_of(step)), found)
        (self.prepared.directory.path / trace / CHECKPOINT[0].name).unlink(missing_ok=True)
        return True

    def _next(self, step: Step) -> int:
        """The number of the next run of a commit, from 1."""
        return len(self.done.get(step.commit, ())) + 1


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
