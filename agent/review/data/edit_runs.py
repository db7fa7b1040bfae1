"""The runs of an edit: pairs under one seed with the commit below it, and runs of policy stacked that carried it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from agent import text
from agent.ledger.events import Stacked
from agent.ledger.state import State
from agent.types import Measurement, Record, Weight, on_validation

MOST = 24  # edits with pairs that are shown, the latest ones


@dataclass(frozen=True)
class SeedPairs:
    """One kept or undecided edit and the seeds that both sides ran."""

    trial: int
    subject: str  # sanitised
    kept: bool  # else undecided
    pairs: tuple[tuple[float, float], ...]  # values of the commit below and of the edit, one for each seed


def seed_pairs_of(state: State) -> tuple[SeedPairs, ...]:
    """The latest kept and undecided edits that have pairs, in order of their trials."""
    shown = [record for record in (*state.kept, *state.open_records) if record.candidate]
    found = []
    for record in sorted(shown, key=lambda record: record.number):
        before = values_by_seed(parent_runs(record, state))
        after = values_by_seed(record.runs)
        pairs = tuple((before[seed], value) for seed, value in after.items() if seed in before)
        if pairs:
            subject = text.line(record.proposal.subject, 90)
            found.append(SeedPairs(record.number, subject, record.decision == "keep", pairs))
    return tuple(found[-MOST:])


def values_by_seed(runs: tuple[Measurement, ...]) -> dict[int, float]:
    """Values on the validation split."""
    return {run.seed: run.value for run in on_validation(runs) if run.value is not None}


def parent_runs(record: Record, state: State) -> tuple[Measurement, ...]:
    """The runs of the parent: an accepted commit was not run itself, but a candidate with the same tree was."""
    for trial, accepted in state.moved.items():
        kept = state.of_trial(trial)
        if accepted == record.parent and kept is not None:
            return kept.runs
    return state.runs.get(record.parent, ())


@dataclass(frozen=True)
class StackedEdit:
    """One edit of a stacked session. Texts are sanitised."""

    subject: str
    standing: str  # keep, revert, likely or undecided
    weight: Weight
    runs: tuple[int, ...]  # that carried it, by their place in the session, from 0


@dataclass(frozen=True)
class StackedRun:
    """A run that carried an edit."""

    run: Measurement
    others: tuple[int, ...]  # trials of the other undecided edits in it


def stacked_edits(state: State) -> tuple[StackedEdit, ...]:
    """Every edit that a run has weighed, in the order of the trials."""
    return tuple(
        StackedEdit(
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
