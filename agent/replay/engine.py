"""Run jobs on the workers of a replay. Every run is recorded in the ledger, so that a killed replay continues.

Round k makes the k-th run of every job before round k + 1 starts, so that a slow drift of the machine affects all
commits alike.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from threading import Lock
from typing import Any, Protocol

from agent.errors import EnvironmentProblem, Interrupted
from agent.ledger.events import Lost, Measured, RunStarted
from agent.ledger.journal import Ledger
from agent.ledger.state import RETRIES, lost_in_a_row
from agent.replay.plan import Job
from agent.replay.steps import Step
from agent.rundir.directory import RunDirectory
from agent.trial.experiment import Experiment
from agent.trial.order import Order
from agent.trial.outputs import CHECKPOINT
from agent.types import Measurement
from sandbox.types import SandboxBroken


class View(Protocol):
    """Receives the progress of a replay. ``run`` counts from 1 to ``runs``."""

    def begins(self, step: Step, run: int, runs: int) -> None: ...
    def progress(self, phase: str, info: Mapping[str, Any]) -> None: ...
    def measured(self, step: Step, run: int, runs: int, found: Measurement) -> None: ...


class Engine:
    """Runs jobs, one on each worker at a time. All state is in the ledger."""

    def __init__(
        self,
        directory: RunDirectory,
        ledger: Ledger,
        experiments: Sequence[Experiment],
        view: View,
        stop: Callable[[], bool],
    ):
        self._directory, self._ledger, self._view, self._stop = directory, ledger, view, stop
        self._workers = len(experiments)
        self._free: SimpleQueue[Experiment] = SimpleQueue()
        for experiment in experiments:
            self._free.put(experiment)
        self._lock = Lock()  # protects the ledger and the view

    def run(self, jobs: Sequence[Job]) -> None:
        """Make the runs that are missing.

        Raises:
            Interrupted: a stop was requested.
            EnvironmentProblem: RETRIES runs in a row were lost to the machine.
        """
        for number in range(max((len(job.runs) for job in jobs), default=0)):
            with ThreadPoolExecutor(self._workers) as pool:
                started = [pool.submit(self._bring, job, number) for job in jobs if number < len(job.runs)]
                try:
                    for future in started:
                        future.result()
                except BaseException:
                    pool.shutdown(wait=True, cancel_futures=True)
                    raise

    def _bring(self, job: Job, number: int) -> None:
        """Repeat lost runs until run ``number`` exists. A commit that failed is not run again."""
        while True:
            with self._lock:
                done = self._ledger.state.runs.get(job.step.commit, ())
            if len(done) > number or any(run.value is None for run in done):
                return
            if self._stop():
                raise Interrupted
            self._measure(job, len(done))

    def _measure(self, job: Job, number: int) -> None:
        """Make one run; a run that is lost to the machine leaves no measurement."""
        step, run, runs = job.step, job.runs[number], len(job.runs)
        with self._lock:
            trace = f"trials/{step.number:04d}/run-{self._tries(step.commit) + 1}"
            self._view.begins(step, number + 1, runs)
            self._ledger.append(RunStarted(trial=0, commit=step.commit, role="replay", seed=run.seed, trace=trace))
        directory, experiment = self._directory.path / trace, self._free.get()
        try:
            order = Order(0, step.commit, "replay", run.seed, trace)
            found = experiment.measure(order, directory, self._progress, run.schedule)
        except (Interrupted, SandboxBroken, EnvironmentProblem) as error:
            self._lose(trace, error)
            return
        finally:
            self._free.put(experiment)
        with self._lock:
            self._ledger.append(Measured(trial=0, measurement=found))
            self._view.measured(step, number + 1, runs, found)
        (directory / CHECKPOINT[0].name).unlink(missing_ok=True)

    def _lose(self, trace: str, error: Exception) -> None:
        with self._lock:
            interrupted = isinstance(error, Interrupted)
            self._ledger.append(Lost(trial=0, trace=trace, reason="interrupted" if interrupted else str(error)))
            if interrupted:
                raise error
            if lost_in_a_row(self._ledger.events) >= RETRIES:
                raise EnvironmentProblem(
                    f"{RETRIES} runs in a row failed on this machine, the last: {error}"
                ) from error

    def _tries(self, commit: str) -> int:
        return sum(isinstance(event, RunStarted) and event.commit == commit for event in self._ledger.events)

    def _progress(self, phase: str, info: Mapping[str, Any]) -> None:
        with self._lock:
            self._view.progress(phase, info)
