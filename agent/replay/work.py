"""A replay or promotion at work in its directory: lock, ledger, requests to stop, and runs on workers.

Every run is recorded in the ledger, so that a killed replay continues.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import suppress
from dataclasses import dataclass

from agent.errors import EnvironmentProblem, Interrupted, UsageError
from agent.ledger.events import Ended, Lost, Measured, Planned, Resumed, RunStarted, SessionStarted
from agent.ledger.journal import Ledger
from agent.ledger.state import RETRIES, lost_in_a_row
from agent.replay.outcomes import Result, result_of
from agent.replay.plan import Plan, runs_left
from agent.replay.progress import ReplayProgress
from agent.replay.steps import Step
from agent.rundir.directory import RunDirectory
from agent.rundir.stop import Stopper
from agent.trial.order import Order
from agent.trial.outputs import CHECKPOINT
from agent.types import Measurement, to_json
from agent.workers.local import Workers
from agent.workers.runtime import Workplace, find_workers
from sandbox.types import SandboxBroken

IDENTITY = ("kind", "what", "baseline", "commits", "budget", "data", "exact")  # cannot change when the work continues
Flying = dict[Future[Measurement], tuple[Step, str]]  # the commit of each run under way, and the folder of its files


@dataclass(frozen=True)
class Work:
    """Makes runs. All state is in the ledger."""

    directory: RunDirectory
    ledger: Ledger
    view: ReplayProgress
    stopper: Stopper
    end: float  # no run starts after this moment of the monotonic clock

    def result(self, plan: Plan) -> Result:
        """What the runs so far say about a plan."""
        return result_of(plan, self.ledger.state.runs)

    def record(self, plan: Plan) -> None:
        """Write the plan into the ledger, so that watchers need nothing else."""
        if (data := to_json(plan)) != self.ledger.state.plan:
            self.ledger.append(Planned(plan=data))

    def run(self, plan: Plan, stage: int, place: Workplace) -> None:
        """Make the missing runs of the comparisons of a stage, until each is decided.

        Round k makes the k-th run of every commit before round k + 1 starts, so that a slow drift of the machine
        affects all commits alike.

        Raises:
            Interrupted: a stop was requested.
            EnvironmentProblem: RETRIES runs in a row were lost to the machine.
        """
        owner = str(self.directory.path.resolve())
        with contextlib.closing(find_workers(place, owner, self.stopper.now)) as workers:
            for number in range(plan.rounds):
                self._round(workers, plan, self.result(plan).undecided[stage], number)

    def _round(self, workers: Workers, plan: Plan, steps: list[Step], number: int) -> None:
        done = self.ledger.state.runs
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
        run = runs[number - 1]
        self.view.begins(step, number, len(runs))
        self.ledger.append(RunStarted(trial=0, commit=step.commit, role="replay", seed=run.seed, trace=trace))
        on = workers.types[0] if len(workers.types) > 1 else ""  # values of two types cannot be compared
        order = Order(0, step.commit, "replay", run.seed, trace, on=on, schedule=run.schedule)
        flying[workers.start(order, self.directory.path / trace, self.view.progress)] = step, trace

    def _finish(self, future: Future[Measurement], plan: Plan, step: Step, trace: str) -> bool:
        """Record the end of a run; False if it was lost to the machine and is to be repeated."""
        try:
            found = future.result()
        except (Interrupted, SandboxBroken, EnvironmentProblem) as error:
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
        (self.directory.path / trace / CHECKPOINT[0].name).unlink(missing_ok=True)
        return True

    def _next(self, step: Step) -> int:
        """The number of the next run of a commit, from 1."""
        return len(self.ledger.state.runs.get(step.commit, ())) + 1


@contextlib.contextmanager
def working(
    directory: RunDirectory, first: SessionStarted, view: ReplayProgress, max_hours: float | None
) -> Iterator[Work]:
    """Open the directory and its ledger. A request to stop ends the block early, without an error.

    Args:
        directory: of the replay or promotion.
        first: the first event of the ledger.
        view: receives the progress.
        max_hours: no run starts after this time; None: no limit.

    Raises:
        UsageError: the directory holds other work.
    """
    directory.path.mkdir(parents=True, exist_ok=True)
    (directory.path / ".gitignore").write_text("*\n")
    with directory.lock(), Ledger(directory.ledger) as ledger:
        _begin(ledger, first, directory)
        directory.forget_stop()
        stopper = Stopper(directory)
        with stopper.listening(), view, suppress(Interrupted):
            yield Work(directory, ledger, view, stopper, time.monotonic() + 3600 * (max_hours or math.inf))
            ledger.append(Ended(reason="all runs done"))


def _begin(ledger: Ledger, event: SessionStarted, directory: RunDirectory) -> None:
    """Write the first event, or check that the ledger belongs to the same work; runs of a dead process are lost."""
    if not ledger.events:
        ledger.append(event)
        return
    state = ledger.state
    if different := [name for name in IDENTITY if getattr(state.session, name) != getattr(event, name)]:
        found = f"{directory.path} holds a {state.session.kind} with other {' and '.join(different)}"
        raise UsageError(f"{found}. Name a new one: --name NAME.")
    ledger.append(Resumed(attempt=state.resumed + 1))
    for started in state.started:
        ledger.append(Lost(trial=0, trace=started.trace, reason=f"the {event.kind} was killed"))
