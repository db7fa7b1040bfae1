"""The night, on one screen: propose, commit, measure, judge, keep or revert, tell.

``Session.advance`` reads what the ledger says and takes the next step. Every step is written down before the next one
relies on it, and none looks at anything but the ledger: that is why a session that was killed goes on where it stood.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import NoReturn, Protocol

from agent.context import Context, Proposer
from agent.errors import EnvironmentProblem, ModelMisconfigured, ModelUnavailable, OvernightError
from agent.judge import History, MeasureNext, Policy, check_baseline, judge, new_incumbent_runs, trials_since
from agent.ledger import Event, Ledger, State, lost_in_a_row
from agent.messages import accepted_message, candidate_message
from agent.noise import Noise, pooled_noise
from agent.normal_form import tree_size
from agent.repo import Repo, RunRefs
from agent.rundir import RunDirectory
from agent.trial import CHECKPOINT, Experiment, Interrupted, Progress
from agent.types import Goal, Measurement, Proposal, Record, Role, Verdict
from sandbox.types import SandboxBroken

AT_ONCE = "stopped at once; the running trial is run again at the next resume"
RETRIES = 3  # of a run whose machinery failed, before the session gives up on the machine


class View(Protocol):
    def event(self, event: Event, state: State) -> None: ...
    def progress(self, phase: str, info: dict[str, object]) -> None: ...


@dataclass
class Session:
    """One run of the agent. Everything it needs is given to it; everything it knows is in ``ledger``."""

    directory: RunDirectory
    ledger: Ledger
    repo: Repo
    refs: RunRefs
    experiment: Experiment
    proposer: Proposer
    policy: Policy
    calibration: int  # runs of the baseline before the first proposal
    goal: Goal
    seed: int
    view: View
    reason_to_stop: Callable[[State], str]
    describe: Callable[[State], Context]
    wait_for_model: bool = True

    def run(self) -> str:
        """Work until there is a reason to stop, and return it."""
        try:
            self.replay()
            while not (reason := self.reason_to_stop(self.state)):
                self.advance()
        except Interrupted:
            reason = AT_ONCE
        except OvernightError as error:
            self.give_up(error)
        except OSError as error:  # a full disk, mostly
            place = f"{error.filename}: " if error.filename else ""
            problem = f"{place}{error.strerror or error}. Mend that, then `overnight resume {self.directory.tag}`."
            self.give_up(EnvironmentProblem(problem))
        self.write("ended", reason=reason)
        return reason

    def give_up(self, error: OvernightError) -> NoReturn:
        with suppress(OvernightError):  # where the ledger itself cannot be written
            self.write("ended", reason=str(error))
        raise error

    def advance(self) -> None:
        """The next step of the night, by what the ledger says was done last."""
        state = self.state
        if len(state.baseline_runs) < self.calibration:
            self.measure(0, state.baseline, "calibrate")
        elif 0 not in state.told:
            self.settle_baseline()
        elif (record := state.open_record) is None:
            self.propose()
        elif record.candidate is None:
            self.commit_candidate(record)
        elif isinstance(step := judge(self.history(record), self.policy), MeasureNext):
            self.measure(record.number, step.commit, step.role)
        else:
            self.conclude(record, step)

    @property
    def state(self) -> State:
        return self.ledger.state

    # propose

    def propose(self) -> None:
        """Ask for one idea and write it down, whether or not it became code."""
        started = time.time()
        number = len(self.state.records) + 1
        try:
            proposal = self.proposer.ask(self.describe(self.state))
        except ModelMisconfigured:
            raise  # no waiting will help
        except ModelUnavailable as error:
            if not self.wait_for_model:
                raise
            self.view.progress("note", {"text": f"waiting for the model server: {error}"})
            return
        self.directory.trial(number).mkdir(parents=True, exist_ok=True)
        (self.directory.trial(number) / "proposal.diff").write_text(proposal.diff, encoding="utf-8", errors="replace")
        self.write("asked", trial=number, started=round(started, 3), proposal=replace(proposal, text=None))
        if proposal.ending:
            self.finish(self.state.records[-1])

    def commit_candidate(self, record: Record) -> None:
        """Every attempt that became code gets a commit and a ref; the same proposal always gives the same hash."""
        path = self.experiment.target.path
        text = self.edited(record.proposal, path)
        commit = self.repo.build(record.proposal.parent, {path: text}, candidate_message(record), int(record.started))
        name = self.refs.attempt_name(record.number)
        self.repo.move(name, commit, self.repo.ref(name))
        self.write("candidate", trial=record.number, commit=commit, ref=name)

    def edited(self, proposal: Proposal, path: str) -> str:
        from agent.patch import apply_reply

        return apply_reply(self.repo.read(proposal.parent, path), proposal.diff, path)

    # measure

    def measure(self, trial: int, commit: str, role: Role) -> None:
        """Train and score a commit once. A broken machine costs a retry, never the idea."""
        state = self.state
        name = f"run-{sum(1 for e in self.ledger.events if e['event'] == 'run_started' and e['trial'] == trial) + 1}"
        trace = f"trials/{trial:04d}/{name}"
        seed = run_seed(self.seed, commit, len(state.runs.get(commit, ())))
        self.write("run_started", trial=trial, commit=commit, role=role, seed=seed, trace=trace)
        try:
            run = self.experiment.measure(
                commit, role, seed, self.directory.path / trace, trace, state.resumed, self.progress(trial, role)
            )
        except Interrupted:
            self.write("lost", trial=trial, trace=trace, reason="interrupted")
            raise
        except (SandboxBroken, EnvironmentProblem, OSError) as error:
            self.write("lost", trial=trial, trace=trace, reason=str(error))
            if lost_in_a_row(self.ledger.events) >= RETRIES:
                count = f"{RETRIES} runs in a row were lost to the machine"
                raise EnvironmentProblem(f"{count}, the last: {error}") from error
            return
        self.write("measured", trial=trial, measurement=self.with_seed_check(run))
        if trial == 0 or commit == self.candidate_of(trial):
            self.forget_checkpoints(trial, keep=trace)
        else:  # the incumbent again: only its value was wanted
            (self.directory.path / trace / CHECKPOINT[0].name).unlink(missing_ok=True)

    def candidate_of(self, trial: int) -> str | None:
        record = self.state.of_trial(trial)
        return record.candidate if record else None

    def with_seed_check(self, run: Measurement) -> Measurement:
        """Equal initial weights under different seeds: the edit pins the seed, and repeats would prove nothing."""
        others = self.state.runs.get(run.commit, ())
        if any(o.initial_hash and o.initial_hash == run.initial_hash and o.seed != run.seed for o in others):
            return replace(run, status="invalid", value=None, reason="seed pinned: equal weights under different seeds")
        return run

    def forget_checkpoints(self, trial: int, keep: str = "") -> None:
        """Only the newest checkpoint of a trial is needed: for the test split, should it be kept."""
        for path in self.directory.trial(trial).glob(f"run-*/{CHECKPOINT[0].name}"):
            if str(path.parent.relative_to(self.directory.path)) != keep:
                path.unlink()

    def progress(self, trial: int, role: str) -> Progress:
        return lambda phase, info: self.view.progress(phase, {**info, "trial": trial, "role": role})

    # judge

    def history(self, record: Record) -> History:
        state = self.state
        assert record.candidate is not None
        return History(
            goal=self.goal,
            incumbent=state.incumbent,
            candidate=record.candidate,
            incumbent_runs=self.incumbent_runs(state),
            candidate_runs=tuple(run for run in record.runs if run.role != "test"),
            noise=self.noise(state),
            simpler_by=self.simpler_by(record),
            incumbent_age=trials_since(self.ledger.events, state.incumbent),
        )

    def incumbent_runs(self, state: State) -> tuple[Measurement, ...]:
        runs = tuple(run for run in state.runs.get(state.incumbent, ()) if run.role != "test")
        return runs if state.incumbent == state.baseline else new_incumbent_runs(runs)

    @staticmethod
    def noise(state: State) -> Noise:
        """Pooled over every commit that was measured more than once."""
        return pooled_noise(
            [run.value for run in runs if run.value is not None and run.role != "test"] for runs in state.runs.values()
        )

    def simpler_by(self, record: Record) -> int:
        if not self.policy.keep_simpler or record.candidate is None:
            return 0
        path = self.experiment.target.path
        before, after = (self.repo.read(c, path) for c in (self.state.head, record.candidate))
        return tree_size(before) - tree_size(after)

    # conclude

    def conclude(self, record: Record, verdict: Verdict) -> None:
        """Write the verdict down, then move the branch, then tell: in this order, so that a kill loses none of it."""
        if verdict.decision == "keep":
            self.measure_test_split(record.number, record.candidate or "", record.runs)
        self.write("judged", trial=record.number, verdict=verdict)
        self.finish(self.state.records[-1])

    def finish(self, record: Record) -> None:
        """What follows the end of a trial. Also run at a resume, for a session that died before it got here."""
        state = self.state
        if record.decision == "keep" and record.number not in state.moved:
            self.accept(record, state)
        if record.number not in state.told:
            self.tell(record)
        self.forget_checkpoints(record.number)

    def accept(self, record: Record, state: State) -> None:
        """The candidate's tree again, on top of the head, with its results; dated by the ledger: it can be rebuilt."""
        assert record.candidate is not None
        message = accepted_message(record, state)
        tree = self.repo.commit(record.candidate).tree
        commit = self.repo.commit_tree(tree, (state.head,), message, int(record.ended or 0))
        self.repo.move(self.refs.head_name, commit, self.repo.ref(self.refs.head_name))
        self.write("moved", trial=record.number, commit=commit)
        self.mirror()

    def mirror(self) -> None:
        state = self.state
        known = frozenset({state.baseline, *state.moved.values()})
        waiting = self.refs.mirror(state.head, known)
        if waiting:
            self.view.progress("note", {"text": waiting})

    def tell(self, record: Record) -> None:
        self.proposer.tell(record)
        self.write("told", trial=record.number)
        self.directory.append_result(record)

    def settle_baseline(self) -> None:
        """After calibration: the refs appear, the search learns what the unchanged target reaches."""
        state = self.state
        values = [run.value for run in state.baseline_runs if run.value is not None]
        if not values:
            worst = next(run for run in reversed(state.baseline_runs) if run.role != "test")
            raise OvernightError(
                f"the unchanged target fails ({worst.status}: {worst.reason}). Nothing can be compared with it; "
                f"see {self.directory.path / worst.trace / 'train.log'}."
            )
        check_baseline([run for run in state.baseline_runs if run.role != "test"], self.policy)
        self.repo.move(self.refs.head_name, state.baseline, self.repo.ref(self.refs.head_name))
        self.mirror()
        self.measure_test_split(0, state.baseline, state.baseline_runs)
        self.tell(self.state.baseline_record)
        self.forget_checkpoints(0)

    def measure_test_split(self, trial: int, commit: str, runs: tuple[Measurement, ...]) -> None:
        """The test split is scored for what is kept, and shown to people alone."""
        if any(run.role == "test" for run in runs):
            return
        last = next((run for run in reversed(runs) if run.value is not None), None)
        if last is None:
            return
        value, failure = self.experiment.score_test(
            commit, self.directory.path / last.trace, last.seed, self.progress(trial, "test")
        )
        if failure:
            reason = f"test split could not be scored: {failure.reason}"
            run = replace(last, role="test", value=None, status=failure.status, reason=reason)
            self.write("measured", trial=trial, measurement=run)
        elif value is not None:
            self.write("measured", trial=trial, measurement=replace(last, role="test", value=value, reason=""))

    # remember

    def replay(self) -> None:
        """Bring the proposer, the refs and the last step to where the ledger says they were."""
        state = self.state
        for started in state.started:
            self.write("lost", trial=started["trial"], trace=started["trace"], reason="the session died")
        self.proposer.replay(self.ledger.events)
        if state.records and state.open_record is None:
            self.finish(state.records[-1])
        if 0 in state.told:
            self.directory.rewrite_results([state.baseline_record, *state.finished])
            self.restore_refs()

    def restore_refs(self) -> None:
        """Refs that were deleted or lag behind come back from the ledger: it is the truth, they are its mirror."""
        state = self.state
        for name, commit in (
            (self.refs.head_name, state.head),
            *((self.refs.attempt_name(r.number), r.candidate) for r in state.records if r.candidate),
        ):
            if commit and (now := self.repo.ref(name)) != commit:
                self.repo.move(name, commit, now)
        self.mirror()

    def write(self, event: str, **fields: object) -> None:
        line = self.ledger.append(event, **fields)
        self.view.event(line, self.state)


def run_seed(session_seed: int, commit: str, k: int) -> int:
    """The harness seed of the k-th run of a commit: fresh for every run, the same at every resume."""
    digest = hashlib.blake2b(f"{session_seed}/{commit}/{k}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big") & 0x7FFFFFFF
