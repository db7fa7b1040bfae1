"""Policy ``stacked``: every run carries new edits and a chosen half of the undecided ones.

Edits are kept and dropped by the linear model that reads all runs. The branch moves once the kept edits alone have run.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from agent.errors import UsageError
from agent.judge.gain import added
from agent.judge.noise import noise_of
from agent.judge.policy import MeasureNext, in_words, undone
from agent.judge.stacked import LAST_RUNS
from agent.judge.stacked_runs import StackedRuns
from agent.ledger.events import Candidate, Judged, Published, Weighed
from agent.ledger.state import State
from agent.session.in_flight import wait
from agent.session.loop import Session
from agent.session.stacked_edits import StackedEdits
from agent.session.stacked_planner import Phase, StackPlanner, unpublished
from agent.session.stopping import AT_ONCE, STOPPED
from agent.session.trial_judge import best_value, lacks_test_score
from agent.types import Decision, Verdict, on_validation

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
        if self.ending.stopper.now():
            return AT_ONCE if self.runs.orders else STOPPED
        if self.runs.orders or unpublished(state) or len(state.observed) < 1 + len(state.finished):
            return ""
        if self.ending.stopper.asked():
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
            decided = self._decide(state) or self._publish(state)
            reported = decided or self.ideas.report(state, waiting=unpublished(state))
            if not (reported or self._measure(state) or self._ask(state)):
                wait(self.runs, self.ideas)

    def _closing(self, state: State) -> str:
        """Why no new edits are asked for; "" while they are."""
        return str(self.ideas.problem or "") or self.ending.before(state, len(state.records) + 1, runs=LAST_RUNS + 2)

    def _planner(self, state: State) -> StackPlanner:
        phase: Phase = "closing" if self._closing(state) else "open"
        if self.ending.before(state, 1):
            phase = "stopping" if self.ending.stopper.asked() else "over"
        return StackPlanner(state, self.fold, self.edits, self.seed, phase)

    # decisions

    def _decide(self, state: State) -> bool:
        """Commit or judge one edit; False if none is ready."""
        event = next(self._decisions(state), None)
        if event is not None:
            self.recorder.write(event)
        return event is not None

    def _decisions(self, state: State) -> Iterator[Candidate | Judged]:
        for record in state.open_records:
            if record.candidate is None:
                yield self.commits.build(record, record.proposal.parent)
        for trial, reason in self.fold.failed.items():
            yield Judged(trial=trial, verdict=undone((), noise_of(state), reason))
        planner = self._planner(state)
        last = not self.runs.orders and planner.last
        for trial, edit in self.fold.edits.items():
            step = self.fold.last_step(trial) if last else edit.step
            pins, parents = self.fold.pins_seed(trial), self.edits.parents(trial, state, self.fold.edits)
            if pins or (pins is None and last):
                yield self._judged(trial, "revert", state, PINNED)
            elif parents is None:
                yield self._judged(trial, "revert", state, CONFLICT)
            elif step == "drop" or (last and step == "keep" and parents):
                yield self._judged(trial, "revert", state)
            elif step == "keep" and not parents and pins is False:
                yield self.edits.on_kept(state.records[trial - 1], state) or self._judged(trial, "keep", state)
        for record in planner.waiting:
            if self.edits.parents(record.number, state, self.fold.edits) is None:
                verdict = undone((), noise_of(state), "it does not fit to the kept edits")
                yield Judged(trial=record.number, verdict=verdict)

    def _judged(self, trial: int, decision: Decision, state: State, note: str = "") -> Judged:
        worth, counts, best = self.fold.worth(trial), self.fold.edits[trial], best_value(state)
        verdict = Verdict(
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
        return Judged(trial=trial, verdict=verdict)

    # the branch

    def _publish(self, state: State) -> bool:
        """Move the head to the newest kept edit whose tree has run alone."""
        records = [record for record in state.kept if record.number not in state.moved]
        while records and not records[-1].values:
            records.pop()
        if not records:
            return False
        checked = records[-1]
        if lacks_test_score(checked.runs, self.commits.target):
            return self.runs.score_test(checked.number, checked.runs)
        commits = [state.head]
        for record in records:
            commits.append(self.commits.commit_accepted(record, state, commits[-1]))
        self.commits.move_head(commits[-1])
        trials = tuple(record.number for record in records)
        self.recorder.write(Published(trial=checked.number, trials=trials, commits=tuple(commits[1:])))
        self.recorder.note(self.commits.mirror(self.recorder.state))
        return True

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
        """Ask for an idea on the working head, which holds the kept edits and those that are likely gains."""
        ahead, planner = self.most_open > self.runs.workers.size, self._planner(state)
        enough = len(planner.waiting) >= planner.wanted + ahead
        if enough or not self.ideas.free or planner.phase != "open" or not (self.runs.room or ahead):
            return False
        likely = [trial for trial, edit in self.fold.edits.items() if edit.nominated]
        carried = self.edits.combine(state, (), likely, likely)
        work = self.edits.build(carried, state, self.commits.refs.work_name)
        runs = on_validation(state.runs.get(state.measured(state.head), ()))
        source = self.commits.read(work)
        return self.ideas.ask(replace(self.describe(state), parent=work, source=source, incumbent_runs=runs))
