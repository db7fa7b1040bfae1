"""Run jobs on the workers of a replay. Every run is recorded in the ledger, so that a killed replay continues.

Round k makes the k-th run of every job before round k + 1 starts, so that a slow drift of the machine affects all
commits alike.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import suppress
from dataclasses import dataclass
from threading import Lock
from typing import Any, Protocol

from agent.errors import EnvironmentProblem, Interrupted
from agent.ledger.events import Lost, Measured, RunStarted
from agent.ledger.journal import Ledger
from agent.ledger.state import RETRIES, lost_in_a_row
from agent.replay.plan import Job
from agent.replay.steps import Step
from agent.rundir.directory import RunDirectory
from agent.trial.order import Order
from agent.trial.outputs import CHECKPOINT
from agent.types import Measurement
from agent.workers.local import Workers
from sandbox.types import SandboxBroken


class View(Protocol):
    """Receives the progress of a replay. ``run`` counts from 1 to ``runs``."""

    def begins(self, step: Step, run: int, runs: int) -> None: ...
    def progress(self, phase: str, info: Mapping[str, Any]) -> None: ...
    def measured(self, step: Step, run: int, runs: int, found: Measurement) -> None: ...


@dataclass(frozen=True)
class _Flying:
    """A run under way: run ``number`` of a job, counted from 0."""

    job: Job
    number: int
    trace: str


class Engine:
    """Runs jobs on workers. All state is in the ledger."""

    def __init__(self, directory: RunDirectory, ledger: Ledger, workers: Workers, view: View, stop: Callable[[], bool]):
        self._directory, self._ledger, self._workers, self._view, self._stop = directory, ledger, workers, view, stop
        self._on = workers.types[0] if len(workers.types) > 1 else ""  # values of two types cannot be compared
        self._lock = Lock()  # protects the view: workers report progress from their threads

    def run(self, jobs: Sequence[Job], rounds: int | None = None) -> None:
        """Make the runs that are missing.

        Args:
            jobs: each with all its planned runs.
            rounds: only so many runs of each job; None: all.

        Raises:
            Interrupted: a stop was requested.
            EnvironmentProblem: RETRIES runs in a row were lost to the machine.
        """
        most = max((len(job.runs) for job in jobs), default=0)
        for number in range(most if rounds is None else min(most, rounds)):
            flying: dict[Future[Measurement], _Flying] = {}
            waiting = deque(job for job in jobs if number < len(job.runs))
            try:
                while waiting or flying:
                    while waiting and len(flying) < self._workers.size:
                        self._start(waiting.popleft(), number, flying)
                    for future in wait(flying, return_when=FIRST_COMPLETED).done:
                        if not self._finish(future, run := flying.pop(future)):
                            waiting.append(run.job)
            finally:
                for future, run in flying.items():  # recorded, so that a continued replay does not repeat them
                    with suppress(Interrupted, EnvironmentProblem):
                        self._finish(future, run)

    def _start(self, job: Job, number: int, flying: dict[Future[Measurement], _Flying]) -> None:
        """Start run ``number``, unless it exists. A commit that failed is not run again."""
        step, runs = job.step, job.runs
        done = self._ledger.state.runs.get(step.commit, ())
        if len(done) > number or any(run.value is None for run in done):
            return
        if self._stop():
            raise Interrupted
        trace = f"trials/{step.number:04d}/run-{self._tries(step.commit) + 1}"
        run = runs[len(done)]
        with self._lock:
            self._view.begins(step, len(done) + 1, len(runs))
        self._ledger.append(RunStarted(trial=0, commit=step.commit, role="replay", seed=run.seed, trace=trace))
        order = Order(0, step.commit, "replay", run.seed, trace, on=self._on, schedule=run.schedule)
        future = self._workers.start(order, self._directory.path / trace, self._progress)
        flying[future] = _Flying(job, len(done), trace)

    def _finish(self, future: Future[Measurement], run: _Flying) -> bool:
        """Record the end of a run; False if it was lost to the machine and is to be repeated."""
        try:
            found = future.result()
        except (Interrupted, SandboxBroken, EnvironmentProblem) as error:
            interrupted = isinstance(error, Interrupted)
            reason = "interrupted" if interrupted else str(error)
            self._ledger.append(Lost(trial=0, trace=run.trace, reason=reason))
            if interrupted:
                raise
            if lost_in_a_row(self._ledger.events) >= RETRIES:
                words = f"{RETRIES} runs in a row failed on this machine, the last: {error}"
                raise EnvironmentProblem(words) from error
            return False
        self._ledger.append(Measured(trial=0, measurement=found))
        with self._lock:
            self._view.measured(run.job.step, run.number + 1, len(run.job.runs), found)
        (self._directory.path / run.trace / CHECKPOINT[0].name).unlink(missing_ok=True)
        return True

    def _tries(self, commit: str) -> int:
        return sum(isinstance(event, RunStarted) and event.commit == commit for event in self._ledger.events)

    def _progress(self, phase: str, info: Mapping[str, Any]) -> None:
        with self._lock:
            self._view.progress(phase, info)
