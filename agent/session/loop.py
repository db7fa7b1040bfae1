"""The night, on one screen: propose, commit, measure, judge, keep or revert, tell.

``Session.advance`` reads what the ledger says and takes the next step. Every step is written down before the next one
relies on it, and none looks at anything but the ledger and what is under way: that is why a session that was killed
goes on where it stood. Several trials may be open: as many as there are workers, and one more where the model can be
asked while they train. Only this thread writes.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import count
from typing import NoReturn, Protocol

from agent.errors import (
    EnvironmentProblem,
    Interrupted,
    ModelMisconfigured,
    ModelUnavailable,
    NoEffect,
    OvernightError,
    PatchRejected,
)
from agent.judge.noise import device_type_of, noise_of
from agent.judge.policy import History, MeasureNext, Policy, check_baseline, judge, undone
from agent.ledger.events import (
    Asked,
    Candidate,
    Ended,
    Event,
    Judged,
    Lost,
    Measured,
    Moved,
    RunStarted,
    Told,
)
from agent.ledger.journal import Ledger
from agent.ledger.state import RETRIES, State, lost_in_a_row
from agent.observers.protocol import View
from agent.proposers.protocol import Context, Proposer
from agent.repo.refs import RunRefs
from agent.repo.repo import Repo
from agent.rundir.directory import RunDirectory
from agent.session.commits import Commits
from agent.session.evidence import history_of
from agent.target import Target
from agent.trial.outputs import CHECKPOINT, forget_checkpoints
from agent.trial.seeds import run_seed, with_seed_check
from agent.types import Measurement, Proposal, Record, Role, Verdict
from agent.workers.local import Order, Workers, in_background
from sandbox.types import SandboxBroken

AT_ONCE = "stopped at once; the running trial is run again at the next resume"
LOOK = 1.0  # seconds between looks at the clock and at what the user wants


class Ending(Protocol):
    """Why the night ends."""

    def at_once(self) -> str:
        """Why everything stops now; "" if it does not."""
        ...

    def before(self, state: State, trial: int) -> str:
        """Why this trial is not begun any more; "" if it is. What was begun is finished: its runs are paid for."""
        ...


@dataclass(frozen=True)
class Idea:
    """A proposal that is being asked for."""

    trial: int
    started: float  # seconds since the epoch
    reply: Future[Proposal]


@dataclass
class Session:
    """One run of the agent. Everything it needs is given to it; everything it knows is in ``ledger``."""

    directory: RunDirectory
    ledger: Ledger
    repo: Repo
    refs: RunRefs
    target: Target
    workers: Workers
    proposer: Proposer
    policy: Policy
    calibration: int  # runs of the baseline before the first proposal
    seed: int
    view: View
    ending: Ending
    describe: Callable[[State], Context]
    wait_for_model: bool = True
    ahead: int = 0  # ideas that are asked for while every worker is busy
    _runs: dict[Future[Measurement], Order] = field(default_factory=dict)
    _broken: int = 0  # runs that were lost to the machine since the last that was not
    _idea: Idea | None = None
    _waited: float = 0.0  # seconds for this idea while nothing else was under way
    _problem: OvernightError | None = None  # of the model, while trials are still running
    _telling: threading.Lock = field(default_factory=threading.Lock)

    def run(self) -> str:
        """Work until there is a reason to stop, and return it."""
        try:
            self.replay()
            while not (reason := self.reason_to_end()):
                self.advance()
        except Interrupted:
            reason = AT_ONCE
        except OvernightError as error:
            self.give_up(error)
        except OSError as error:  # a full disk, mostly
            place = f"{error.filename}: " if error.filename else ""
            problem = f"{place}{error.strerror or error}. Mend that, then `overnight resume {self.directory.tag}`."
            self.give_up(EnvironmentProblem(problem))
        self.leave()
        self.write(Ended(reason=reason))
        return reason

    def give_up(self, error: OvernightError) -> NoReturn:
        with suppress(OvernightError):  # where the ledger itself cannot be written
            self.leave()
            self.write(Ended(reason=str(error)))
        raise error

    def reason_to_end(self) -> str:
        """Why the night is over; "" while a trial is to be begun or finished."""
        if reason := self.ending.at_once():
            return AT_ONCE if self._runs else reason
        state = self.state
        unsettled = 0 in state.told and len(state.told) < 1 + len(state.finished)
        if self._runs or unsettled or any(record.candidate for record in state.open_records):
            return ""
        if self._problem:
            raise self._problem
        waiting = state.open[0] if state.open else len(state.records) + 1
        return self.ending.before(state, waiting)

    def advance(self) -> None:
        """The next step of the night, by what the ledger says was done last; wait where each needs something else."""
        state = self.state
        if self.uncalibrated(state):
            advanced = self.calibrate(state)
        elif 0 not in state.told:
            advanced = self.settle_baseline(state)
        else:
            trials = (self.advance_trial(record, state) for record in state.open_records)
            advanced = self.settle(state) or any(trials) or self.ask(state)
        if not advanced:
            self.wait()

    def advance_trial(self, record: Record, state: State) -> bool:
        """The next step of one trial; whether there was one to take now."""
        if any(order.trial == record.number for order in self._runs.values()):
            return False
        if record.candidate is None:
            return self.commit_candidate(record, state)
        if record.base != state.head:
            return self.catch_up(record, state)
        step = judge(self.history(record), self.policy)
        if isinstance(step, MeasureNext):
            return self.measure(record.number, step.commit, step.role, device_type_of(record))
        return self.conclude(record, step)

    @property
    def state(self) -> State:
        return self.ledger.state

    @property
    def commits(self) -> Commits:
        return Commits(self.repo, self.refs, self.target, self.proposer)

    # propose

    def ask(self, state: State) -> bool:
        """Ask for one idea, in the background."""
        trial = len(state.records) + 1
        room = len(state.open) < self.workers.size + self.ahead
        if not room or self._idea or self._problem or self.ending.before(state, trial):
            return False
        context = self.describe(state)
        self._waited = 0.0
        self._idea = Idea(trial, time.time(), in_background(lambda: self.proposer.ask(context)))
        return True

    def take_idea(self, idea: Idea) -> None:
        """Write an idea down, whether or not it became code."""
        self._idea = None
        try:
            proposal = idea.reply.result()
        except ModelUnavailable as error:
            if self.wait_for_model and not isinstance(error, ModelMisconfigured):  # which no waiting mends
                self.tell_view("note", {"text": f"waiting for the model server: {error}"})
            else:
                self._problem = error
            return
        trial = self.directory.trial(idea.trial)
        trial.mkdir(parents=True, exist_ok=True)
        (trial / "proposal.diff").write_text(proposal.diff, encoding="utf-8", errors="replace")
        started, waited = round(idea.started, 3), round(self._waited, 3)
        self.write(Asked(trial=idea.trial, started=started, waited=waited, proposal=replace(proposal, text=None)))

    def commit_candidate(self, record: Record, state: State) -> bool:
        """Every attempt that became code gets a commit and a ref."""
        if not self.room or self.ending.before(state, record.number):
            return False
        try:
            commit = self.commits.build(record, state.head)
        except PatchRejected as error:
            if record.proposal.parent == state.head:
                raise
            return self.drop(record, error)
        return self.put_up(record, commit, 0, state.head)

    def put_up(self, record: Record, commit: str, revision: int, parent: str) -> bool:
        name = self.commits.set_ref(record, commit, revision)
        self.write(Candidate(trial=record.number, commit=commit, ref=name, parent=parent))
        return True

    # where the branch has moved on since the trial was begun

    def catch_up(self, record: Record, state: State) -> bool:
        """A loss against the branch that the trial was begun on is a loss. Anything else has to show itself again, on
        top of what the branch is now: it never holds a combination that nobody ran."""
        if record.runs:
            step = judge(self.history(record, record.base), self.policy)
            if isinstance(step, Verdict) and step.decision == "revert":
                return self.conclude(record, step)
        try:
            commit, revision = self.commits.rebase(record, state.head)
        except PatchRejected as error:
            return self.drop(record, error)
        return self.put_up(record, commit, revision, state.head)

    def drop(self, record: Record, error: PatchRejected) -> bool:
        """The branch has moved on to where this edit has no place."""
        state = self.state
        why = "brought the same" if isinstance(error, NoEffect) else f"is in its way ({str(error).splitlines()[0]})"
        reason = f"trial {state.keeps[-1]}, kept meanwhile, {why}"
        return self.conclude(record, undone(record.runs, noise_of(state), reason))

    # measure

    def measure(self, trial: int, commit: str, role: Role, on: str = "") -> bool:
        """Have a commit trained and scored once, if a worker is free and nobody else runs the present best already."""
        running = list(self._runs.values())
        if not self.room or (role in ("incumbent", "reserve") and any(order.commit == commit for order in running)):
            return False
        state = self.state
        before = sum(isinstance(event, RunStarted) and event.trial == trial for event in self.ledger.events)
        trace = f"trials/{trial:04d}/run-{before + 1}"
        used = {run.seed for run in state.runs.get(commit, ())} | {o.seed for o in running if o.commit == commit}
        seed = next(seed for k in count() if (seed := run_seed(self.seed, commit, k)) not in used)
        self.write(RunStarted(trial=trial, commit=commit, role=role, seed=seed, trace=trace))
        self.start(Order(trial, commit, role, seed, trace, state.resumed, on))
        return True

    @property
    def room(self) -> bool:
        """Whether a run can be begun. A worker that has lost one gets none while others are at work: a machine that
        stays broken would lose run after run in no time, until the session gives up on those that are well."""
        out = self._broken if self._runs else 0
        return len(self._runs) + out < self.workers.size

    def start(self, order: Order) -> None:
        def progress(phase: str, info: Mapping[str, object]) -> None:
            if order is next(iter(list(self._runs.values())), order):  # of several, the one that began first is shown
                self.tell_view(phase, {**info, "trial": order.trial, "role": order.role, "running": len(self._runs)})

        self._runs[self.workers.start(order, self.directory.path / order.trace, progress)] = order

    def wait(self) -> None:
        """Until a run or an idea comes back, or it is time to look around."""
        began = time.monotonic()
        futures: list[Future[object]] = [*self._runs, *([self._idea.reply] if self._idea else [])]  # type: ignore[list-item]
        if not futures:  # the time was over between two looks at the clock
            return
        done, _ = wait(futures, timeout=LOOK, return_when=FIRST_COMPLETED)
        if not self._runs:
            self._waited += time.monotonic() - began
        for future in [future for future in self._runs if future in done]:
            self.take_run(future)
        if self._idea and self._idea.reply in done:
            self.take_idea(self._idea)

    def take_run(self, future: Future[Measurement]) -> None:
        """Write down what a run gave. A broken machine costs a retry, never the idea."""
        order = self._runs.pop(future)
        try:
            run = future.result()
        except Interrupted:
            self.lose(order, "interrupted")
            raise
        except (SandboxBroken, EnvironmentProblem, OSError) as error:
            self.lose(order, str(error))
            self._broken += 1
            if (lost := lost_in_a_row(self.ledger.events)) >= RETRIES * self.workers.size:
                raise EnvironmentProblem(f"{lost} runs in a row were lost to the machine, the last: {error}") from error
            return
        self._broken = 0
        checked = with_seed_check(run, self.state.runs.get(run.commit, ()))
        self.write(Measured(trial=order.trial, measurement=checked))
        if order.trial == 0 or order.commit == self.candidate_of(order.trial):
            self.forget_checkpoints(order.trial, keep=order.trace)
        else:  # the incumbent again: only its value was wanted
            (self.directory.path / order.trace / CHECKPOINT[0].name).unlink(missing_ok=True)

    def lose(self, order: Order, reason: str) -> None:
        if order.scored is None:
            self.write(Lost(trial=order.trial, trace=order.trace, reason=reason))

    def candidate_of(self, trial: int) -> str | None:
        record = self.state.of_trial(trial)
        return record.candidate if record else None

    def forget_checkpoints(self, trial: int, keep: str = "") -> None:
        """Only the newest checkpoint of a trial is needed: for the test split, should it be kept."""
        forget_checkpoints(self.directory, trial, {keep, *(order.trace for order in self._runs.values())})

    # judge

    def history(self, record: Record, base: str = "") -> History:
        """What the verdict on a trial may depend on: against the present best, or what the branch was at ``base``."""
        return history_of(record, self.state, self.ledger.events, self.repo, self.target, self.policy, base)

    # conclude

    def conclude(self, record: Record, verdict: Verdict) -> bool:
        """Write the verdict down. ``settle`` moves the branch, then tells: in this order, a kill loses none of it."""
        if verdict.decision == "keep" and self.untested(record.runs):
            return self.measure_test_split(record.number, record.runs)
        self.write(Judged(trial=record.number, verdict=verdict))
        return True

    def settle(self, state: State) -> bool:
        """What follows the end of a trial, for the first that lacks it: also at a resume, for one that died before."""
        for number in state.keeps:
            if number not in state.moved:
                self.accept(state.records[number - 1], state)
                return True
        if self._idea:  # the proposer is asked and told by turns
            return False
        record = next((record for record in state.finished if record.number not in state.told), None)
        if record is not None:
            self.tell(record)
            self.forget_checkpoints(record.number)
        return record is not None

    def accept(self, record: Record, state: State) -> None:
        commit = self.commits.accept(record, state)
        self.write(Moved(trial=record.number, commit=commit))
        self.mirror()

    def mirror(self) -> None:
        if waiting := self.commits.mirror(self.state):
            self.tell_view("note", {"text": waiting})

    def tell(self, record: Record) -> None:
        self.proposer.tell(record)
        self.write(Told(trial=record.number))
        self.directory.append_result(record)

    # the baseline

    def uncalibrated(self, state: State) -> list[str]:
        """The types of device on which the unchanged target has not run often enough: at first, or at a resume."""
        runs = [run for run in state.baseline_runs if run.role != "test"]
        return [kind for kind in self.workers.types if sum(run.on(kind) for run in runs) < self.calibration]

    def calibrate(self, state: State) -> bool:
        for kind in self.uncalibrated(state):
            done = sum(run.on(kind) for run in state.baseline_runs if run.role != "test")
            under_way = sum(order.on == kind for order in self._runs.values())
            if done + under_way < self.calibration and not self.ending.before(state, 1):
                return self.measure(0, state.baseline, "calibrate", kind)
        return False

    def settle_baseline(self, state: State) -> bool:
        """After calibration: the refs appear, the search learns what the unchanged target reaches."""
        values = [run.value for run in state.baseline_runs if run.value is not None]
        if not values:
            worst = next(run for run in reversed(state.baseline_runs) if run.role != "test")
            raise OvernightError(
                f"the unchanged target fails ({worst.status}: {worst.reason}). Nothing can be compared with it; "
                f"see {self.directory.path / worst.trace / 'train.log'}."
            )
        for kind in self.workers.types:
            check_baseline([run for run in state.baseline_runs if run.role != "test" and run.on(kind)], self.policy)
        self.commits.move_head(state.baseline)
        self.mirror()
        if self.untested(state.baseline_runs):
            return self.measure_test_split(0, state.baseline_runs)
        self.tell(state.baseline_record)
        self.forget_checkpoints(0)
        return True

    # the test split: scored for what is kept, and shown to people alone

    def untested(self, runs: tuple[Measurement, ...]) -> bool:
        return self.target.score == "trusted" and not any(run.role == "test" for run in runs)

    def measure_test_split(self, trial: int, runs: tuple[Measurement, ...]) -> bool:
        if not self.room or any(order.trial == trial for order in self._runs.values()):
            return False
        last = next(run for run in reversed(runs) if run.value is not None)
        self.start(Order(trial, last.commit, "test", last.seed, last.trace, last.attempt, last.device_type, last))
        return True

    # remember

    def replay(self) -> None:
        """Bring the proposer and the refs to where the ledger says they were."""
        state = self.state
        for started in state.started:
            self.write(Lost(trial=started.trial, trace=started.trace, reason="the session died"))
        self.proposer.replay(self.ledger.events)
        if 0 in state.told:
            told = [state.of_trial(event.trial) for event in self.ledger.events if isinstance(event, Told)]
            self.directory.rewrite_results([record or state.baseline_record for record in told])
            self.commits.restore(state)
            self.mirror()

    def leave(self) -> None:
        """Let nothing run on. What ended just now still counts."""
        self.workers.close()
        for future in list(self._runs):
            with suppress(Interrupted):
                self.take_run(future)

    def write(self, event: Event) -> None:
        written = self.ledger.append(event)
        with self._telling:
            self.view.event(written, self.state)

    def tell_view(self, phase: str, info: dict[str, object]) -> None:
        with self._telling:  # workers tell of their progress from threads of their own
            self.view.progress(phase, info)
