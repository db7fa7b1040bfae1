"""The runs of an edit beside those of the commit below it: runs under one seed are a pair."""

from __future__ import annotations

from dataclasses import dataclass

from agent import text
from agent.ledger.state import State
from agent.types import Measurement, Record

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
    return {run.seed: run.value for run in runs if run.value is not None and run.role != "test"}


def parent_runs(record: Record, state: State) -> tuple[Measurement, ...]:
    """The runs of the parent: an accepted commit was not run itself, but a candidate with the same tree was."""
    for trial, accepted in state.moved.items():
        kept = state.of_trial(trial)
        if accepted == record.parent and kept is not None:
            return kept.runs
    return state.runs.get(record.parent, ())
