"""Policy stacked: which edits each run carried, and what each edit is worth now."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from agent import text
from agent.ledger.events import Stacked
from agent.ledger.state import State
from agent.types import Measurement, Record, Weight


@dataclass(frozen=True)
class StackedEdit:
    """One edit of a stacked session. Texts are sanitised."""

    trial: int
    subject: str
    standing: str  # keep, revert, likely or undecided
    weight: Weight
    runs: tuple[int, ...]  # that carried it, by their place in the night, from 0


@dataclass(frozen=True)
class StackedRun:
    """A run that carried an edit."""

    run: Measurement
    others: tuple[int, ...]  # trials of the other undecided edits in it


def stacked_edits(state: State) -> tuple[StackedEdit, ...]:
    """Every edit that a run has weighed, in the order of the trials."""
    return tuple(
        StackedEdit(
            trial=trial,
            subject=text.line(record.proposal.subject),
            standing=record.decision if record.verdict else "likely" if weight.nominated else "undecided",
            weight=weight,
            runs=tuple(at for at, stack in enumerate(state.stacks) if trial in stack.edits),
        )
        for trial, weight in sorted(state.weights.items())
        if (record := state.of_trial(trial)) is not None
    )


def stacked_runs(record: Record, state: State) -> tuple[StackedRun, ...]:
    """The runs that carried the edit of a trial, oldest first."""
    plans: Mapping[tuple[str, int], Stacked] = {(stack.commit, stack.seed): stack for stack in state.stacks}
    return tuple(
        StackedRun(run, tuple(trial for trial in plan.edits if trial != record.number))
        for run in record.stacks
        if (plan := plans.get((run.commit, run.seed))) is not None
    )
