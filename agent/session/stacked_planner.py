"""Policy ``stacked``: which edits the next run carries."""

from __future__ import annotations

import random
from dataclasses import dataclass
from itertools import chain, count

from agent.judge.paired import WINDOW, window
from agent.judge.stacked import LAST_RUNS, RUNS_PER_CHECK, choose, new_edits
from agent.judge.stacked_runs import StackedRuns
from agent.ledger.events import Stacked
from agent.ledger.state import State
from agent.session.stacked_edits import Carried, StackedEdits
from agent.trial.seeds import session_seed
from agent.types import Record

CHECKS = 2  # failed runs of the kept edits alone after which the branch waits for the next keep


@dataclass(frozen=True)
class StackPlanner:
    """Plans the runs of a stacked session."""

    state: State
    found: StackedRuns  # what the runs of ``state`` say
    edits: StackedEdits
    seed: int  # of the session
    closing: str  # why no new edits are asked for; "" while they are

    @property
    def waiting(self) -> list[Record]:
        """Edits that no run has carried yet, or only one that failed beside another new edit."""
        busy = {trial for stack in self.found.pending for trial in stack.new}
        gone = {*self.found.edits, *self.found.failed, *busy}
        return [record for record in self.state.open_records if record.candidate and record.number not in gone]

    def next_run(self, stopping: bool, over: bool) -> Stacked | None:
        """The next run; None if it has to wait for an idea or another run.

        Args:
            stopping: whether the user has asked the session to end.
            over: whether no run with undecided edits may start.
        """
        new, undecided = self._new(), list(self.found.edits)
        toggles = undecided and not new and self._only_old()
        if unpublished(self.state) and not any(stack.commit == self.state.incumbent for stack in self.found.pending):
            due = sum(1 for _ in _since_check(self.state)) >= RUNS_PER_CHECK
            if due or stopping or (self.closing and not new and not toggles):
                return self._stacked(Carried((), ""), ())
        if over or not (new or toggles):
            return None
        draw = random.Random(f"{self.seed}/stack/{len(self.state.stacks)}")
        chosen: list[int] = []
        if self.found.weighing is not None and undecided:
            pending = [stack.edits for stack in self.found.pending]
            matrix = self.found.weighing.variances(self._seed(), undecided, pending)
            inside = choose(matrix, draw, [edit.counts.ahead for edit in self.found.edits.values()])
            chosen = [trial for trial, carried in zip(undecided, inside, strict=True) if carried]
        draw.shuffle(chosen)
        if new and new[0] in self.found.alone:
            chosen = []
        carried = self.edits.combine(self.state, new, chosen, undecided)
        return self._stacked(carried, tuple(trial for trial in new if trial in carried.trials))

    def _stacked(self, carried: Carried, new: tuple[int, ...]) -> Stacked:
        name = self.edits.commits.refs.stack_name(len(self.state.stacks) + 1)
        trial = (new or carried.trials or unpublished(self.state) or tuple(self.found.edits))[-1]
        commit = self.edits.build(carried, self.state, name)
        seed = self._seed(commit)
        return Stacked(
            trial=trial, commit=commit, ref=name, base=self.state.incumbent, edits=carried.trials, new=new, seed=seed
        )

    def _seed(self, commit: str = "") -> int:
        """The seeds in use take turns. No commit runs twice under one seed: that would tell nothing."""
        used = {run.seed for run in self.state.runs.get(commit, ())}
        used |= {stack.seed for stack in self.found.pending if stack.commit == commit}
        seeds, turn = window(len(self.state.keeps)), len(self.state.stacks) % WINDOW
        order = chain(seeds[turn:], seeds[:turn], count(seeds.stop))
        return next(seed for seed in (session_seed(self.seed, k) for k in order) if seed not in used)

    def _new(self) -> list[int]:
        """The new edits of the next run; [] while another idea is to be asked for first."""
        waiting = [record.number for record in self.waiting]
        if alone := [trial for trial in waiting if trial in self.found.alone]:
            return alone[:1]
        wanted = self.wanted
        short = len(waiting) < wanted and not self.closing
        return [] if short else waiting[:wanted]

    @property
    def wanted(self) -> int:
        likely = sum(edit.counts.nominated is None for edit in self.found.edits.values())
        return new_edits(2, likely, len(self.found.tried), self.found.ruined)

    def _only_old(self) -> bool:
        """Whether a run without new edits is due: too many are undecided, or the session is about to end."""
        return not self.wanted or (bool(self.closing) and since_new(self.state) < LAST_RUNS)


def unpublished(state: State) -> list[int]:
    """Kept edits that the branch lacks; [] once the runs of the kept edits alone have failed ``CHECKS`` times."""
    failed = sum(run.value is None for run in state.runs.get(state.incumbent, ()) if run.role == "stack")
    return [] if failed >= CHECKS else [trial for trial in state.keeps if trial not in state.moved]


def since_new(state: State) -> int:
    """Runs since the last with new edits."""
    return next((k for k, stack in enumerate(reversed(state.stacks)) if stack.new), len(state.stacks))


def _since_check(state: State) -> list[Stacked]:
    """Runs since the last of the kept edits alone."""
    at = max((k for k, stack in enumerate(state.stacks) if not stack.edits), default=-1)
    return list(state.stacks[at + 1 :])
