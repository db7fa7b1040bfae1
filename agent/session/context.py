"""What the session shows a proposer before each proposal."""

from __future__ import annotations

import dataclasses

from agent.judge.noise import noise_of
from agent.ledger.state import State
from agent.proposers.memory import Memory
from agent.proposers.protocol import Context
from agent.rundir.directory import NOTES, RunDirectory
from agent.session.parts import Parts
from agent.types import Record, on_validation


def describe(
    state: State, parts: Parts, directory: RunDirectory, memory: Memory, failed: Record | None = None
) -> Context:
    """Everything that a proposer may know: all but the scores on the test split.

    Args:
        failed: the trial whose edit is to be repaired; None for a new idea.
    """
    finished, number, parent, transcripts = state.finished, len(state.records) + 1, state.head, ""
    if failed is not None:  # on the file that the model has edited, although the head may have moved
        number, parent, transcripts = failed.number, failed.proposal.parent, f"repair-{len(failed.repairs) + 1}"
    since_keep = next((k for k, r in enumerate(reversed(finished)) if r.decision == "keep"), len(finished))
    without_test = tuple(dataclasses.replace(record, runs=on_validation(record.runs)) for record in finished)
    return Context(
        parent=parent,
        source=parts.repo.read(parent, parts.target.path),
        path=parts.target.path,
        history=without_test,
        incumbent_runs=on_validation(state.runs.get(state.incumbent, ())),
        noise_sd=noise_of(state).sd,
        notes=_notes(directory),
        hardware=f"{parts.device.kind}, {parts.device.threads} threads, {parts.target.memory_gb:g} GB",
        budget=str(parts.target.budget),
        trial=number,
        seed=parts.settings.seed,
        plateau=since_keep,
        metric=parts.target.metric,
        goal=parts.target.goal,
        transcripts=directory.trial(number) / transcripts,
        run_directory=directory.path,
        baseline=parts.repo.read(state.baseline, parts.target.path),
        open=tuple(record for record in state.open_records if failed is None or record.number != failed.number),
        failed=failed,
        memory=memory,
    )


def _notes(directory: RunDirectory) -> str:
    """notes.md without the lines of its placeholder."""
    text = directory.notes.read_text(encoding="utf-8", errors="replace") if directory.notes.exists() else ""
    placeholder = set(NOTES.splitlines())
    return "\n".join(line for line in text.splitlines() if line not in placeholder or not line).strip()
