"""One night: ask for an edit, commit it, train and score it, judge it, then keep or revert it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from agent.errors import Interrupted, OvernightError, SearchExhausted, system_problem
from agent.judge.noise import device_type_of
from agent.judge.policy import MeasureNext
from agent.ledger.events import Candidate, Ended, Judged, Moved
from agent.ledger.state import State
from agent.proposers.protocol import Context
from agent.session.baseline import Baseline
from agent.session.commits import Commits
from agent.session.in_flight import Ideas, Runs, wait
from agent.session.recorder import Recorder
from agent.session.restore import restore
from agent.session.stopping import AT_ONCE, STOPPED, EndOfNight
from agent.session.trial_judge import TrialJudge, lacks_test_score
from agent.types import Record, Verdict


@dataclass(frozen=True)
class Session:
    """Each step is in the ledger before the next one, so that a killed session can continue."""

    recorder: Recorder
    runs: Runs
    ideas: Ideas
    commits: Commits
    baseline: Baseline
    judge: TrialJudge
    ending: EndOfNight
    describe: Callable[[State], Context]
    repair: Callable[[Record, State], bool]  # whether the trial waits for the repair of its edit
    most_open: int  # trials that may be open: one for each worker, and one more where ideas are asked for ahead

    def run(self) -> str:
        """Work until there is a reason to end; return it."""
        try:
            restore(self.recorder, self.ideas, self.commits)
            while not (reason := self.reason_to_end(self.recorder.state)):
                self.advance(self.recorder.state)
        except Interrupted:
            reason = AT_ONCE
        except SearchExhausted as error:
            reason = str(error)
        except (OvernightError, OSError) as error:
            problem = error if isinstance(error, OvernightError) else system_problem(error)
            with suppress(OvernightError):  # the disk of the ledger may be full
                self.end(str(problem))
            raise problem from error.__cause__
        return self.end(reason)

    def advance(self, state: State) -> None:
        """Take the first step that is possible; where none is, wait for a run or an idea."""
        trials = (self.advance_trial(record, state) for record in state.open_records)
        if not self.baseline.settled(state):
            advanced = self.baseline.advance(state)
        else:
            advanced = self.settle(state) or any(trials) or self.ask(state)
        if not advanced:
            wait(self.runs, self.ideas)

    def ask(self, state: State) -> bool:
        """Ask the proposer for an idea, in the background."""
        trial = len(state.records) + 1
        free = len(state.open) < self.most_open and self.ideas.free and not self.ending.before(state, trial)
        return free and self.ideas.ask(self.describe(state))

    def advance_trial(self, record: Record, state: State) -> bool:
        """Commit, measure or judge an open trial; False if it has to wait."""
        late = record.candidate is None and (not self.runs.room or self.ending.before(state, record.number))
        if late or self.runs.of(record.number) or self.repair(record, state):
            return False
        step = self.judge.next_step(record, state, self.recorder.events)
        match step:
            case Candidate():
                self.recorder.write(step)
            case MeasureNext():
                return self.runs.measure(record.number, step, device_type_of(record))
            case Verdict(decision="keep") if lacks_test_score(record.runs, self.commits.target):
                return self.runs.score_test(record.number, record.runs)
            case Verdict():
                self.recorder.write(Judged(trial=record.number, verdict=step))
        return True

    def settle(self, state: State) -> bool:
        """Move the head to an edit that was kept, then report to the proposer. A resume finishes an unfinished move."""
        if keep := next((number for number in state.keeps if number not in state.moved), None):
            self.recorder.write(Moved(trial=keep, commit=self.commits.accept(state.records[keep - 1], state)))
            self.recorder.note(self.commits.mirror(self.recorder.state))
            return True
        return self.ideas.report(state)

    def reason_to_end(self, state: State) -> str:
        """Why the session ends; "" while a trial is to be started or finished."""
        if self.ending.stopper.now():
            return AT_ONCE if self.runs.orders else STOPPED
        unreported = 0 in state.observed and len(state.observed) < 1 + len(state.finished)
        if self.runs.orders or unreported or any(record.candidate for record in state.open_records):
            return ""
        if self.ideas.problem:
            raise self.ideas.problem
        trial = state.open[0] if state.open else len(state.records) + 1
        return self.ending.before(state, trial if 0 in state.observed else 0)

    def end(self, reason: str) -> str:
        self.runs.leave()
        self.recorder.write(Ended(reason=reason))
        return reason
