"""One attempt: why it failed, what it changed, what it was for, how its runs went, its curve beside its parent's.

``show_json`` is schema ``overnight.show/1``: the object of ``log --json`` for this attempt, and schema, parent, model,
rationale, diff, params (null), ending (null), transcript, verdict (null while under way), started and ended (seconds
since the epoch; null), failure (list of lines), curve and parent_curve (lists of [progress, loss]), and measurements:
one object per run with the fields of the ledger. Control characters in texts are spelled out; git has the exact bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agent import text
from agent.curves import Point, curve_of, thin
from agent.ledger.state import State
from agent.review.data.attempts import attempt_json
from agent.review.data.failures import failure_lines
from agent.types import Measurement, Record, to_json

SCHEMA = "overnight.show/1"


def show_json(record: Record, state: State, run_dir: Path) -> dict[str, Any]:
    proposal = record.proposal
    data: dict[str, Any] = {
        "schema": SCHEMA,
        **attempt_json(record),
        "parent": record.parent,
        "model": proposal.model,
        "rationale": proposal.rationale,
        "diff": proposal.diff,
        "params": dict(proposal.params) if proposal.params is not None else None,
        "ending": proposal.ending,
        "transcript": proposal.transcript,
        "verdict": to_json(record.verdict),
        "started": record.started,
        "ended": record.ended,
        "failure": failure_lines(record, run_dir),
        "curve": _pairs(curve_of(run_dir, record.runs)),
        "parent_curve": _pairs(curve_of(run_dir, parent_runs(record, state))),
        "measurements": [to_json(run) for run in record.runs],
    }
    cleaned = text.clean_json(data)
    assert isinstance(cleaned, dict)
    return cleaned


def parent_runs(record: Record, state: State) -> Sequence[Measurement]:
    """The runs of what the attempt started from: an accepted commit has the tree of a kept candidate, which was run."""
    parent = record.parent
    for trial, accepted in state.moved.items():
        kept = state.of_trial(trial)
        if accepted == parent and kept is not None:
            return kept.runs
    return state.runs.get(parent, ())


def _pairs(points: list[Point]) -> list[list[float]]:
    return [[point.progress, point.loss] for point in thin(points, 500)]
