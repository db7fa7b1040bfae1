"""What a session waits for: runs that workers make, and an idea that the proposer is asked for."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping
from concurrent import futures
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

from agent.errors import (
    EnvironmentProblem,
    Interrupted,
    ModelMisconfigured,
    ModelUnavailable,
    OvernightError,
    SearchExhausted,
)
from agent.judge.policy import MeasureNext
from agent.ledger.events import Asked, Lost, Measured, Observed, Repaired, RunStarted
from agent.ledger.state import RETRIES, State, lost_in_a_row
from agent.proposers.protocol import Context, Proposer
from agent.rundir.directory import RunDirectory
from agent.rundir.results import append_result, rewrite_results
from agent.session.recorder import Recorder
from agent.trial.order import Order
from agent.trial.outputs import forget_checkpoints
from agent.trial.seeds import session_seed, with_seed_check
from agent.trial.usual import UNKNOWN, usual_of
from agent.types import Measurement, Proposal
from agent.workers.local import Workers, in_background

LOOK = 1.0  # seconds between looks at the clock and at requests of the user


class Runs:
    """The runs in flight, at most one for each worker."""

    def __init__(self, workers: Workers, directory: RunDirectory, recorder: Recorder, seed: int, smoke: float = 0.0):
        self.workers, self.smoke = workers, smoke  # bound of the smoke test of a new program, in seconds; 0: none
        self.orders: dict[Future[Measurement], Order] = {}
        self.directory, self.recorder, self._seed = directory, recorder, seed
        self._lost = 0  # runs that were lost since the last that was measured

    @property
    def room(self) -> bool:
        """Whether a run can be started.

        Workers whose last run was lost stay idle while others are busy; otherwise one broken machine would use up
        ``RETRIES`` for all of them.
        """
        idle = self._lost if self.orders else 0
        return len(self.orders) + idle < self.workers.size

    def of(self, trial: int) -> bool:
        """Whether a run of this trial is in flight."""
        return any(order.trial == trial for order in self.orders.values())

    def measure(self, trial: int, wanted: MeasureNext, on: str = "") -> bool:
        """Train and score a commit once, on a device of type ``on`` ("": any). False if that has to wait."""
        commit, role, seed = wanted.commit, wanted.role, wanted.seed
        running = [order.seed for order in self.orders.values() if order.commit == commit]
        if not self.room or (role == "incumbent" and running):  # one run of the incumbent serves all open trials
            return False
        state, events = self.recorder.state, self.recorder.events
        earlier = sum(isinstance(event, RunStarted) and event.trial == trial for event in events)
        trace = f"trials/{trial:04d}/run-{earlier + 1}"
        used = {*running, *(run.seed for run in state.runs.get(commit, ()))}
        smoke = 0.0 if used else self.smoke
        if seed is None:
            seed = next(seed for k in count() if (seed := session_seed(self._seed, k)) not in used)
        self.recorder.write(RunStarted(trial=trial, commit=commit, role=role, seed=seed, trace=trace))
        usual = usual_of(state.baseline_runs) if trial else UNKNOWN
        return self._start(
            Order(trial, commit, role, seed, trace, state.resumed, on, watch=wanted.watch, smoke=smoke, usual=usual)
        )

    def score_test(self, trial: int, runs: tuple[Measurement, ...]) -> bool:
        """Score the newest checkpoint of ``runs`` on the test split. False if that has to wait."""
        run = with_checkpoint(runs)
        if run is None or not self.room or self.of(trial):
            return False
        return self._start(Order(trial, run.commit, "test", run.seed, run.trace, run.attempt, run.device_type, run))

    def _start(self, order: Order) -> bool:
        def progress(phase: str, info: Mapping[str, object]) -> None:
            if order is next(iter(list(self.orders.values())), order):  # only the oldest run is shown
                more = {"trial": order.trial, "role": order.role, "running": len(self.orders)}
                self.recorder.progress(phase, {**info, **more})

        self.orders[self.workers.start(order, self.directory.path / order.trace, progress)] = order
        return True

    def take(self, future: Future[Measurement]) -> None:
        """Record the outcome of a run that ended.

        Raises:
            Interrupted: the user stopped the run.
            EnvironmentProblem: ``RETRIES`` runs in a row were lost on each worker.
        """
        order = self.orders.pop(future)
        try:
            run = future.result()
        except (Interrupted, EnvironmentProblem) as error:
            reason = "interrupted" if isinstance(error, Interrupted) else str(error)
            if order.scored is None:
                self.recorder.write(Lost(trial=order.trial, trace=order.trace, reason=reason))
            if isinstance(error, Interrupted):
                raise
            self._lost += 1
            if (lost := lost_in_a_row(self.recorder.events)) >= RETRIES * self.workers.size:
                raise EnvironmentProblem(f"{lost} runs in a row were lost to the machine, the last: {error}") from error
            return
        self._lost = 0
        checked = with_seed_check(run, self.recorder.state.runs.get(run.commit, ()))
        self.recorder.write(Measured(trial=order.trial, measurement=checked))
        prune_checkpoints(self.directory, self.recorder.state, order.trial, self.orders.values())

    def leave(self) -> None:
        """End all runs. The outcome of a run that has just ended is recorded."""
        self.workers.close()
        for future in list(self.orders):
            with suppress(Interrupted):
                self.take(future)


def with_checkpoint(runs: tuple[Measurement, ...]) -> Measurement | None:
    """The run whose checkpoint is scored on the test split: the newest with a value."""
    return next((run for run in reversed(runs) if run.counts), None)


def prune_checkpoints(directory: RunDirectory, state: State, trial: int, running: Iterable[Order]) -> None:
    """Delete the checkpoints of a trial, except those of running runs and the one for the test split."""
    record = state.of_trial(trial)
    needed = with_checkpoint(record.runs if record else state.baseline_runs) if trial not in state.observed else None
    forget_checkpoints(directory, trial, {*(order.trace for order in running), *([needed.trace] if needed else [])})


@dataclass(frozen=True)
class Idea:
    """A proposal that the proposer is asked for."""

    context: Context
    started: float  # seconds since the epoch
    reply: Future[Proposal]


class Ideas:
    """Asks the proposer for one idea at a time, in the background, and tells it the outcomes."""

    def __init__(self, proposer: Proposer, directory: RunDirectory, recorder: Recorder, wait_for_model: bool):
        self.pending: Idea | None = None
        self.problem: OvernightError | None = None  # why no more ideas come
        self.waited = 0.0  # seconds that the session has waited for the pending idea and for nothing else
        self._proposer, self._directory, self._recorder = proposer, directory, recorder
        self._wait_for_model = wait_for_model

    @property
    def free(self) -> bool:
        """Whether the proposer can be asked."""
        return not self.pending and not self.problem

    def ask(self, context: Context) -> bool:
        """Ask for the edit of a trial, or for the repair of its edit."""
        self.waited = 0.0
        self.pending = Idea(context, time.time(), in_background(lambda: self._proposer.ask(context)))
        return True

    def take(self, idea: Idea) -> None:
        """Record the proposal that arrived, whether or not it can become code."""
        self.pending = None
        try:
            proposal = idea.reply.result()
        except (ModelUnavailable, SearchExhausted) as error:
            if self._wait_for_model and not isinstance(error, (ModelMisconfigured, SearchExhausted)):
                self._recorder.note(f"waiting for the model server: {error}")
            else:
                self.problem = error
            return
        trial, failed, waited = idea.context.trial, idea.context.failed, round(self.waited, 3)
        folder, proposal = self._directory.trial(trial), replace(proposal, text=None)
        folder.mkdir(parents=True, exist_ok=True)
        if failed is None or not proposal.ending:
            (folder / "proposal.diff").write_text(proposal.diff, encoding="utf-8", errors="replace")
        if failed is None:
            started = round(idea.started, 3)
            self._recorder.write(Asked(trial=trial, started=started, waited=waited, proposal=proposal))
        else:
            self._recorder.write(Repaired(trial=trial, waited=waited, proposal=proposal))

    def restore(self, state: State) -> None:
        """Bring the proposer and results.tsv to where the ledger ends."""
        self._proposer.replay(self._recorder.events)
        if 0 in state.observed:
            trials = [event.trial for event in self._recorder.events if isinstance(event, Observed)]
            records = [state.of_trial(trial) or state.baseline_record for trial in trials]
            rewrite_results(self._directory.results, records, state.session.goal)

    def report(self, state: State, waiting: Collection[int] = ()) -> bool:
        """Report the baseline, or a finished trial other than those ``waiting``; False if there is none.

        The proposer and results.tsv receive it. Its checkpoints are not needed any more.
        """
        known = state.observed.union(waiting)
        records = state.finished if 0 in known else (state.baseline_record,)
        record = next((record for record in records if record.number not in known), None)
        if record is None or self.pending:  # one thread at a time uses the proposer
            return False
        self._proposer.tell(record)
        self._recorder.write(Observed(trial=record.number))
        append_result(self._directory.results, record, state.session.goal)
        forget_checkpoints(self._directory, record.number, ())
        return True


def wait(runs: Runs, ideas: Ideas) -> None:
    """Wait until a run or an idea arrives, at most ``LOOK`` seconds, and record what arrived."""
    began, idea = time.monotonic(), ideas.pending
    awaited: set[Future[Any]] = {*runs.orders, *([idea.reply] if idea else [])}
    if not awaited:  # the end of the night came between two looks at the clock
        return
    done, _ = futures.wait(awaited, timeout=LOOK, return_when=futures.FIRST_COMPLETED)
    if not runs.orders:
        ideas.waited += time.monotonic() - began
    for future in [future for future in runs.orders if future in done]:
        runs.take(future)
    if idea and idea.reply in done:
        ideas.take(idea)
