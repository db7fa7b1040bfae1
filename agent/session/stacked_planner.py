"""Policy ``stacked``: which edits the next run carries."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain, compress, count
from typing import Literal

from agent.judge.paired import WINDOW, window
from agent.judge.stacked import LAST_RUNS, RUNS_PER_CHECK, choose, new_edits
from agent.judge.stacked_runs import StackedRuns
from agent.ledger.events import Stacked
from agent.ledger.state import State
from agent.session.stacked_edits import StackedEdits
from agent.trial.seeds import session_seed
from agent.types import Record

# "open": new edits are asked for; "closing": the last runs, without new edits; "over": no run with undecided edits may
# start; "stopping": the user ends the session, and undecided edits stay open
Phase = Literal["open", "closing", "over", "stopping"]
CHECKS = 2  # failed runs of the kept edits alone after which the branch waits for the next keep


@dataclass(frozen=True)
class StackPlanner:
    """Plans the runs of a stacked session."""

    state: State
    fold: StackedRuns  # what the runs of ``state`` say
    edits: StackedEdits
    seed: int  # of the session
    phase: Phase

    @property
    def waiting(self) -> list[Record]:
        """Edits that no run has carried yet, or only one that failed beside another new edit."""
        busy = {trial for stack in self.fold.pending for trial in stack.new}
        gone = {*self.fold.edits, *self.fold.failed, *busy}
        return [record for record in self.state.open_records if record.candidate and record.number not in gone]

    @property
    def last(self) -> bool:
        """Whether no more runs with undecided edits will be made, so that each is decided now."""
        closed = not self.waiting and not self._lacks_last_runs
        return not self.fold.pending and (self.phase == "over" or (self.phase == "closing" and closed))

    @property
    def _lacks_last_runs(self) -> bool:
        return _runs_since(self.state, lambda stack: stack.new) < LAST_RUNS

    def next_run(self) -> Stacked | None:
        """The next run; None if it has to wait for an idea or another run."""
        new, undecided, pending = self._new(), list(self.fold.edits), self.fold.pending
        # too many edits are undecided, or the session is about to end
        due = not self.wanted or (self.phase != "open" and self._lacks_last_runs)
        only_old = undecided and not new and due
        if unpublished(self.state) and not any(stack.commit == self.state.incumbent for stack in pending):
            late = _runs_since(self.state, lambda stack: not stack.edits) >= RUNS_PER_CHECK
            if late or self.phase == "stopping" or (self.phase != "open" and not new and not only_old):
                return self._stacked((), ())
        if self.phase in ("over", "stopping") or not (new or only_old):
            return None
        draw = random.Random(f"{self.seed}/stack/{len(self.state.stacks)}")
        chosen: list[int] = []
        if undecided and self.fold.weighing is not None:
            matrix = self.fold.weighing.variances(self._seed(), undecided, [stack.edits for stack in pending])
            chosen += compress(undecided, choose(matrix, draw, [edit.ahead for edit in self.fold.edits.values()]))
        draw.shuffle(chosen)
        if new and new[0] in self.fold.alone:
            chosen = []
        carried = self.edits.combine(self.state, new, chosen, undecided)
        return self._stacked(carried, tuple(trial for trial in new if trial in carried))

    def _stacked(self, carried: tuple[int, ...], new: tuple[int, ...]) -> Stacked:
        name = self.edits.commits.refs.stack_name(len(self.state.stacks) + 1)
        trial = (new or carried or unpublished(self.state) or tuple(self.fold.edits))[-1]
        commit = self.edits.build(carried, self.state, name)
        seed = self._seed(commit)
        return Stacked(
            trial=trial, commit=commit, ref=name, base=self.state.incumbent, edits=carried, new=new, seed=seed
        )

    def _seed(self, commit: str = "") -> int:
        """The seeds in use take turns. No commit runs twice under one seed: that would tell nothing."""
        used = {run.seed for run in self.state.runs.get(commit, ())}
        used |= {stack.seed for stack in self.fold.pending if stack.commit == commit}
        seeds, turn = window(len(self.state.keeps)), len(self.state.stacks) % WINDOW
        order = chain(seeds[turn:], seeds[:turn], count(seeds.stop))
        return next(seed for seed in (session_seed(self.seed, k) for k in order) if seed not in used)

    def _new(self) -> list[int]:
        """The new edits of the next run; [] while another idea is to be asked for first."""
        waiting = [record.number for record in self.waiting]
        if alone := [trial for trial in waiting if trial in self.fold.alone]:
            return alone[:1]
        short = len(waiting) < self.wanted and self.phase == "open"
        return [] if short else waiting[: self.wanted]

    @property
    def wanted(self) -> int:
        """New edits that the next run carries if there are enough."""
        return new_edits(self.fold.edits.values(), len(self.fold.tried), self.fold.ruined)


def unpublished(state: State) -> list[int]:
    """Kept edits that the branch lacks; [] once the runs of the kept edits alone have failed ``CHECKS`` times."""
    failed = sum(run.value is None for run in state.runs.get(state.incumbent, ()) if run.role == "stack")
    return [] if failed >= CHECKS else [trial for trial in state.keeps if trial not in state.moved]


def _runs_since(state: State, last: Callable[[Stacked], object]) -> int:
    return next((k for k, stack in enumerate(reversed(state.stacks)) if last(stack)), len(state.stacks))
