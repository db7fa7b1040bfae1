"""Policy ``stacked``: every run carries new edits and a chosen half of the undecided ones.

Edits are kept and dropped by the linear model that reads all runs. The branch moves once the kept edits alone have run.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from itertools import chain, count

from agent.errors import UsageError
from agent.judge.gain import added
from agent.judge.noise import noise_of
from agent.judge.paired import WINDOW, window
from agent.judge.policy import MeasureNext, undone
from agent.judge.stacked import LAST_RUNS, RUNS_PER_CHECK, choose, new_edits
from agent.judge.stacked_runs import StackedRuns
from agent.ledger.events import Judged, Published, Stacked, Weighed
from agent.ledger.state import State
from agent.proposers.protocol import Context
from agent.session.evidence import best_value, has_value, lacks_test_score
from agent.session.in_flight import wait
from agent.session.loop import Session
from agent.session.stacked_edits import Carried, StackedEdits
from agent.session.stopping import AT_ONCE
from agent.trial.seeds import session_seed
from agent.types import Decision, Record, Verdict

PINNED = "seed pinned, equal weights under different seeds"
CHECKS = 2  # failed runs of the kept edits alone after which the branch waits for the next keep


@dataclass(frozen=True)
class StackedSession(Session):
    """A session whose runs carry several edits. On a target without noise it works as its base class does."""

    seed: int
    edits: StackedEdits
    found: StackedRuns = field(default_factory=StackedRuns)

    def reason_to_end(self, state: State) -> str:
        """Where the user stops the session, undecided edits stay open, so that a resume continues with them."""
        found = self.found.catch_up(self.recorder.events)
        if not self.baseline.settled(state) or not found.varies:
            return super().reason_to_end(state)
        if reason := self.ending.at_once():
            return AT_ONCE if self.runs.orders else reason
        if self.runs.orders or _unpublished(state) or any(record.number not in state.told for record in state.finished):
            return ""
        if self.ending.stopping:
            return self.ending.before(state, 1)
        if state.open:  # edits that never ran stay open where time is over
            return "" if found.edits or found.pending or found.failed else self.ending.before(state, 1)
        if self.ideas.problem:
            raise self.ideas.problem
        return self._closing(state)

    def advance(self, state: State) -> None:
        """Take the first step that is possible; where none is, wait for a run or an idea."""
        found = self.found.catch_up(self.recorder.events)
        if not self.baseline.settled(state) or not found.varies:
            super().advance(state)
        elif found.device_type and found.device_type not in self.runs.workers.types:
            raise UsageError(
                f"the run has measured its edits on {found.device_type}, and values of another type of device cannot "
                f"be added to them. Resume on a device of that type."
            )
        elif found.unweighed:
            self.recorder.write(Weighed(trial=found.unweighed, edits=found.weights))
        elif not (
            self._commit(state)
            or self._decide(state)
            or self._publish(state)
            or self._tell(state)
            or self._measure(state)
            or self._ask(state)
        ):
            wait(self.runs, self.ideas)

    # what is to be done

    def _waiting(self, state: State) -> list[Record]:
        """Edits that no run has carried yet, or only one that failed beside another new edit."""
        busy = {trial for stack in self.found.pending for trial in stack.new}
        gone = {*self.found.edits, *self.found.failed, *busy}
        return [record for record in state.open_records if record.candidate and record.number not in gone]

    def _closing(self, state: State) -> str:
        """Why no new edits are asked for; "" while they are."""
        return str(self.ideas.problem or "") or self.ending.before(state, len(state.records) + 1, runs=LAST_RUNS + 2)

    def _last(self, state: State) -> bool:
        """Whether no more runs with undecided edits will be made, so that each is decided now."""
        if self.ending.stopping or self.runs.orders or self.found.pending or not self._closing(state):
            return False
        return bool(self.ending.before(state, 1)) or (not self._waiting(state) and _since_new(state) >= LAST_RUNS)

    # decisions

    def _commit(self, state: State) -> bool:
        record = next((record for record in state.open_records if record.candidate is None), None)
        if record is None:
            return False
        candidate = self.commits.build(record, record.proposal.parent)
        self.commits.publish(candidate)
        self.recorder.write(candidate)
        return True

    def _decide(self, state: State) -> bool:
        """Judge one edit, or prepare to keep it; False if none is ready."""
        for trial, reason in self.found.failed.items():
            return self._judge(trial, undone((), noise_of(state), reason))
        last = self._last(state)
        for trial, edit in self.found.edits.items():
            step = self.found.last_step(trial) if last else edit.step
            pins = self.found.pins_seed(trial)
            if pins or (pins is None and last):
                return self._judge(trial, self._verdict(trial, "revert", state, f"{PINNED}: "))
            parents = self.edits.parents(trial, state, self.found.edits)
            if parents is None or step == "drop" or (last and step == "keep" and parents):
                conflict = "its lines no longer fit to the kept edits: " if parents is None else ""
                return self._judge(trial, self._verdict(trial, "revert", state, conflict))
            if step == "keep" and not parents and pins is False:
                return self._keep(state.records[trial - 1], state)
        for record in self._waiting(state):
            if self.edits.parents(record.number, state, self.found.edits) is None:
                return self._judge(record.number, undone((), noise_of(state), "it does not fit to the kept edits"))
        return False

    def _keep(self, record: Record, state: State) -> bool:
        candidate = self.edits.on_kept(record, state)
        if candidate is None:
            return self._judge(record.number, self._verdict(record.number, "keep", state))
        self.commits.publish(candidate)
        self.recorder.write(candidate)
        return True

    def _judge(self, trial: int, verdict: Verdict) -> bool:
        self.recorder.write(Judged(trial=trial, verdict=verdict))
        return True

    def _verdict(self, trial: int, decision: Decision, state: State, note: str = "") -> Verdict:
        worth, counts, best = self.found.worth(trial), self.found.edits[trial].counts, best_value(state)
        sure = "over 99 %" if worth.probability > 0.99 else f"{worth.probability:.0%}".replace("%", " %")
        return Verdict(
            decision=decision,
            value=None if best is None else added(best, worth.gain, state.session.goal),
            best_before=best,
            gain=worth.gain,
            gain_se=worth.se,
            n=counts.runs_in,
            n_before=counts.runs_out,
            dof=noise_of(state).dof,
            reason=f"{note}a gain with probability {sure}, {counts.runs_in} runs with it, {counts.runs_out} without",
            probability=worth.probability,
        )

    # the branch

    def _publish(self, state: State) -> bool:
        """Move the head to the newest kept edit whose tree has run alone."""
        numbers = [trial for trial in state.keeps if trial not in state.moved]
        checked = next((trial for trial in reversed(numbers) if has_value(state.records[trial - 1].runs)), None)
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

    def _tell(self, state: State) -> bool:
        """Tell the proposer the outcome of an edit; of a kept one, once it is on the branch."""
        open_ = set(_unpublished(state))
        record = next((r for r in state.finished if r.number not in {*state.told, *open_}), None)
        if record is None or self.ideas.pending:
            return False
        self.ideas.tell(record)
        return True

    # runs and ideas

    def _measure(self, state: State) -> bool:
        """Start a run that is planned, or plan one."""
        if not self.runs.room:
            return False
        under_way = {(order.commit, order.seed) for order in self.runs.orders.values()}
        for stack in self.found.pending:
            if (stack.commit, stack.seed) not in under_way:
                wanted = MeasureNext(stack.commit, "stack", "several edits at once", stack.seed)
                return self.runs.measure(stack.trial, wanted, self.found.device_type)
        planned = self._plan(state)
        if planned is not None:
            self.recorder.write(planned)
        return planned is not None

    def _plan(self, state: State) -> Stacked | None:
        """The next run; None if it has to wait for an idea or another run."""
        new, undecided = self._new(state), list(self.found.edits)
        toggles = undecided and not new and self._only_old(state)
        if _unpublished(state) and not any(stack.commit == state.incumbent for stack in self.found.pending):
            due = sum(1 for _ in _since_check(state)) >= RUNS_PER_CHECK
            if due or self.ending.stopping or (self._closing(state) and not new and not toggles):
                return self._stacked(state, Carried((), ""), ())
        if self.ending.stopping or self.ending.before(state, 1) or not (new or toggles):
            return None
        draw = random.Random(f"{self.seed}/stack/{len(state.stacks)}")
        chosen: list[int] = []
        if self.found.weighing is not None and undecided:
            pending = [stack.edits for stack in self.found.pending]
            matrix = self.found.weighing.variances(self._seed(state), undecided, pending)
            inside = choose(matrix, draw, [edit.counts.ahead for edit in self.found.edits.values()])
            chosen = [trial for trial, carried in zip(undecided, inside, strict=True) if carried]
        draw.shuffle(chosen)
        if new and new[0] in self.found.alone:
            chosen = []
        carried = self.edits.combine(state, new, chosen, undecided)
        return self._stacked(state, carried, tuple(trial for trial in new if trial in carried.trials))

    def _stacked(self, state: State, carried: Carried, new: tuple[int, ...]) -> Stacked:
        name = self.commits.refs.stack_name(len(state.stacks) + 1)
        trial = (new or carried.trials or _unpublished(state) or tuple(self.found.edits))[-1]
        commit = self.edits.build(carried, state, name)
        seed = self._seed(state, commit)
        return Stacked(
            trial=trial, commit=commit, ref=name, base=state.incumbent, edits=carried.trials, new=new, seed=seed
        )

    def _seed(self, state: State, commit: str = "") -> int:
        """The seeds in use take turns. No commit runs twice under one seed: that would tell nothing."""
        used = {run.seed for run in state.runs.get(commit, ())}
        used |= {stack.seed for stack in self.found.pending if stack.commit == commit}
        seeds, turn = window(len(state.keeps)), len(state.stacks) % WINDOW
        order = chain(seeds[turn:], seeds[:turn], count(seeds.stop))
        return next(seed for seed in (session_seed(self.seed, k) for k in order) if seed not in used)

    def _new(self, state: State) -> list[int]:
        """The new edits of the next run; [] while another idea is to be asked for first."""
        waiting = [record.number for record in self._waiting(state)]
        if alone := [trial for trial in waiting if trial in self.found.alone]:
            return alone[:1]
        wanted = self._wanted()
        short = len(waiting) < wanted and not self._closing(state)
        return [] if short else waiting[:wanted]

    def _wanted(self) -> int:
        likely = sum(edit.counts.nominated is None for edit in self.found.edits.values())
        return new_edits(2, likely, len(self.found.tried), self.found.ruined)

    def _only_old(self, state: State) -> bool:
        """Whether a run without new edits is due: too many are undecided, or the session is about to end."""
        return not self._wanted() or (bool(self._closing(state)) and _since_new(state) < LAST_RUNS)

    def _ask(self, state: State) -> bool:
        ahead = self.most_open > self.runs.workers.size
        enough = len(self._waiting(state)) >= self._wanted() + ahead
        if enough or not self.ideas.free or self._closing(state) or not (self.runs.room or ahead):
            return False
        self.ideas.ask(len(state.records) + 1, self._context(state))
        return True

    def _context(self, state: State) -> Context:
        """What the proposer sees: the working head, which holds the kept edits and those that are likely gains."""
        likely = [trial for trial, edit in self.found.edits.items() if edit.counts.nominated]
        carried = self.edits.combine(state, (), likely, likely)
        work = self.edits.build(carried, state, self.commits.refs.work_name)
        runs = state.runs.get(state.measured(state.head), ())
        return replace(
            self.describe(state),
            parent=work,
            source=carried.text,
            incumbent_runs=tuple(run for run in runs if run.role != "test"),
        )


def _unpublished(state: State) -> list[int]:
    """Kept edits that the branch lacks; [] once the runs of the kept edits alone have failed ``CHECKS`` times."""
    failed = sum(run.value is None for run in state.runs.get(state.incumbent, ()) if run.role == "stack")
    return [] if failed >= CHECKS else [trial for trial in state.keeps if trial not in state.moved]


def _since_new(state: State) -> int:
    """Runs since the last with new edits."""
    return next((k for k, stack in enumerate(reversed(state.stacks)) if stack.new), len(state.stacks))


def _since_check(state: State) -> list[Stacked]:
    """Runs since the last of the kept edits alone."""
    at = max((k for k, stack in enumerate(state.stacks) if not stack.edits), default=-1)
    return list(state.stacks[at + 1 :])
