"""Policy ``stacked``: every run carries new edits and a chosen half of the undecided ones.

Edits are kept and dropped by the linear model that reads all runs. The branch moves once the kept edits alone have run.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from agent.errors import UsageError
from agent.judge.gain import added
from agent.judge.noise import noise_of
from agent.judge.policy import MeasureNext, in_words, undone
from agent.judge.stacked import LAST_RUNS
from agent.judge.stacked_runs import StackedRuns
from agent.ledger.events import Candidate, Judged, Published, Weighed
from agent.ledger.state import State
from agent.proposers.protocol import Context
from agent.session.in_flight import wait
from agent.session.loop import Session
from agent.session.stacked_edits import StackedEdits
from agent.session.stacked_planner import Phase, StackPlanner, since_new, unpublished
from agent.session.stopping import AT_ONCE
from agent.session.trial_judge import best_value, lacks_test_score
from agent.types import Decision, Record, Verdict, on_validation

PINNED = "seed pinned, equal weights under different seeds: "
CONFLICT = "its lines no longer fit to the kept edits: "


@dataclass(frozen=True)
class StackedSession(Session):
    """A session whose runs carry several edits. On a target without noise it works as its base class does."""

    seed: int
    edits: StackedEdits
    fold: StackedRuns = field(default_factory=StackedRuns)

    def reason_to_end(self, state: State) -> str:
        """Where the user stops the session, undecided edits stay open, so that a resume continues with them."""
        fold = self.fold.catch_up(self.recorder.events)
        if not self.baseline.settled(state) or not fold.varies:
            return super().reason_to_end(state)
        if reason := self.ending.at_once():
            return AT_ONCE if self.runs.orders else reason
        if (
            self.runs.orders
            or unpublished(state)
            or any(record.number not in state.observed for record in state.finished)
        ):
            return ""
        if self.ending.stopping:
            return self.ending.before(state, 1)
        if state.open:  # edits that never ran stay open where time is over
            return "" if fold.edits or fold.pending or fold.failed else self.ending.before(state, 1)
        if self.ideas.problem:
            raise self.ideas.problem
        return self._closing(state)

    def advance(self, state: State) -> None:
        """Take the first step that is possible; where none is, wait for a run or an idea."""
        fold = self.fold.catch_up(self.recorder.events)
        if not self.baseline.settled(state) or not fold.varies:
            super().advance(state)
        elif fold.device_type and fold.device_type not in self.runs.workers.types:
            raise UsageError(
                f"the run has measured its edits on {fold.device_type}, and values of another type of device "
                f"cannot be added to them. Resume on a device of that type."
            )
        elif fold.unweighed:
            self.recorder.write(Weighed(trial=fold.unweighed, edits=fold.weights))
        else:
            steps = (self._commit, self._judge, self._publish, self._report, self._measure, self._ask)
            if not any(step(state) for step in steps):
                wait(self.runs, self.ideas)

    # what is to be done

    def _closing(self, state: State) -> str:
        """Why no new edits are asked for; "" while they are."""
        return str(self.ideas.problem or "") or self.ending.before(state, len(state.records) + 1, runs=LAST_RUNS + 2)

    def _planner(self, state: State) -> StackPlanner:
        phase: Phase = "closing" if self._closing(state) else "open"
        if self.ending.before(state, 1):
            phase = "stopping" if self.ending.stopping else "over"
        return StackPlanner(state, self.fold, self.edits, self.seed, phase)

    def _last(self, planner: StackPlanner) -> bool:
        """Whether no more runs with undecided edits will be made, so that each is decided now."""
        if planner.phase in ("open", "stopping") or self.runs.orders or self.fold.pending:
            return False
        return planner.phase == "over" or (not planner.waiting and since_new(planner.state) >= LAST_RUNS)

    # decisions

    def _commit(self, state: State) -> bool:
        record = next((record for record in state.open_records if record.candidate is None), None)
        return record is not None and self._record(self.commits.build(record, record.proposal.parent))

    def _record(self, step: Candidate | Judged) -> bool:
        if isinstance(step, Candidate):
            self.commits.publish(step)
        self.recorder.write(step)
        return True

    def _judge(self, state: State) -> bool:
        """Judge one edit, or prepare to keep it; False if none is ready."""
        for trial, reason in self.fold.failed.items():
            return self._decide(trial, undone((), noise_of(state), reason))
        planner = self._planner(state)
        last = self._last(planner)
        for trial, edit in self.fold.edits.items():
            step = self.fold.last_step(trial) if last else edit.step
            pins, parents = (
                self.fold.pins_seed(trial),
                self.edits.parents(trial, state, self.fold.edits),
            )
            if pins or (pins is None and last):
                note = PINNED
            elif parents is None:
                note = CONFLICT
            elif step == "drop" or (last and step == "keep" and parents):
                note = ""
            elif step == "keep" and not parents and pins is False:
                return self._keep(state.records[trial - 1], state)
            else:
                continue
            return self._decide(trial, self._verdict(trial, "revert", state, note))
        for record in planner.waiting:
            if self.edits.parents(record.number, state, self.fold.edits) is None:
                return self._decide(record.number, undone((), noise_of(state), "it does not fit to the kept edits"))
        return False

    def _decide(self, trial: int, verdict: Verdict) -> bool:
        return self._record(Judged(trial=trial, verdict=verdict))

    def _keep(self, record: Record, state: State) -> bool:
        if candidate := self.edits.on_kept(record, state):
            return self._record(candidate)
        return self._decide(record.number, self._verdict(record.number, "keep", state))

    def _verdict(self, trial: int, decision: Decision, state: State, note: str = "") -> Verdict:
        worth, counts, best = self.fold.worth(trial), self.fold.edits[trial], best_value(state)
        return Verdict(
            decision=decision,
            value=None if best is None else added(best, worth.gain, state.session.goal),
            best_before=best,
            gain=worth.gain,
            gain_se=worth.se,
            n=counts.runs_in,
            n_before=counts.runs_out,
            dof=noise_of(state).dof,
            reason=f"{note}{in_words(worth.probability)}, {counts.runs_in} runs with it, {counts.runs_out} without",
            probability=worth.probability,
        )

    # the branch

    def _publish(self, state: State) -> bool:
        """Move the head to the newest kept edit whose tree has run alone."""
        numbers = [trial for trial in state.keeps if trial not in state.moved]
        checked = next((trial for trial in reversed(numbers) if state.records[trial - 1].values), None)
        if checked is None:
            return False
        record, head, commits = state.records[checked - 1], state.head, []
        if lacks_test_score(record.runs, self.commits.target):
            return self.runs.score_test(checked, record.runs)
        trials = tuple(numbers[: numbers.index(checked) + 1])
        for trial in trials:
            head = self.commits.commit_accepted(state.records[trial - 1], state, head)
            commits.append(head)
        self.commits.move_head(head)
        self.recorder.write(Published(trial=checked, trials=trials, commits=tuple(commits)))
        self.recorder.note(self.commits.mirror(self.recorder.state))
        return True

    def _report(self, state: State) -> bool:
        """Report an edit to the proposer; a kept one, once it is on the branch."""
        return self.ideas.report(state, unpublished(state))

    # runs and ideas

    def _measure(self, state: State) -> bool:
        """Start a run that is planned, or plan one."""
        if not self.runs.room:
            return False
        under_way = {(order.commit, order.seed) for order in self.runs.orders.values()}
        for stack in self.fold.pending:
            if (stack.commit, stack.seed) not in under_way:
                wanted = MeasureNext(stack.commit, "stack", "several edits at once", stack.seed)
                return self.runs.measure(stack.trial, wanted, self.fold.device_type)
        planned = self._planner(state).next_run()
        if planned is not None:
            self.recorder.write(planned)
        return planned is not None

    def _ask(self, state: State) -> bool:
        ahead = self.most_open > self.runs.workers.size
        planner = self._planner(state)
        enough = len(planner.waiting) >= planner.wanted + ahead
        free = self.ideas.free and planner.phase == "open" and (self.runs.room or ahead)
        return free and not enough and self.ideas.ask(len(state.records) + 1, self._context(state))

    def _context(self, state: State) -> Context:
        """What the proposer sees: the working head, which holds the kept edits and those that are likely gains."""
        likely = [trial for trial, edit in self.fold.edits.items() if edit.nominated]
        carried = self.edits.combine(state, (), likely, likely)
        work = self.edits.build(carried, state, self.commits.refs.work_name)
        runs = on_validation(state.runs.get(state.measured(state.head), ()))
        return replace(self.describe(state), parent=work, source=carried.text, incumbent_runs=runs)
