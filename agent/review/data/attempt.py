"""One attempt in full: the edit, its purpose, its runs, the failure, and the loss curve beside its parent's.

``show_json`` is schema ``overnight.show/1``: the object of ``log --json`` for this attempt, and schema, parent, model,
rationale, diff, params (null), ending (null), transcript, verdict (null while under way), started and ended (seconds
since the epoch; null), failure (list of lines), curve and parent_curve (lists of [progress, loss]), measurements (one
object per run with the fields of the ledger), and versions (one object per repair: subject, diff and ending of what was
replaced, or of the unusable reply, and its measurements). Policy stacked adds weight (null or trial, probability, gain,
se, runs_in, runs_out, mean_in, mean_out, nominated: what the edit is worth after its last run) and stacked (runs that
carried it: objects with commit, seed, value and others, the trials of the other edits). Control characters in texts
are spelled out; git has the exact bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent import text
from agent.curves import Point, curve_of, inside, thin
from agent.ledger.state import State
from agent.review.data.attempts import Attempt, attempt_json, attempt_of
from agent.review.data.diffs import size_of
from agent.review.data.seed_pairs import parent_runs, values_by_seed
from agent.review.data.stacked import StackedRun, stacked_runs
from agent.review.data.times import phases
from agent.types import Record, Weight, to_json

SHOW_SCHEMA = "overnight.show/1"
TAIL_BYTES = 64 << 10


@dataclass(frozen=True)
class Details:
    """One attempt in full. ``attempt.record`` holds the proposal and the runs."""

    attempt: Attempt
    metric: str
    under_way: bool
    rationale: str  # sanitised
    added: int  # lines of the diff
    removed: int
    failure: tuple[str, ...]  # decisive lines of the failed run's log
    phases: tuple[str, ...]  # that its runs went through
    curve: tuple[Point, ...]  # of its first run that has one
    parent_curve: tuple[Point, ...]
    weight: Weight | None  # policy stacked: what the runs say about the edit
    stacked: tuple[StackedRun, ...]  # policy stacked: runs that carried it
    parent_values: Mapping[int, float]  # value of the parent by seed: runs under one seed are a pair


def details_of(record: Record, state: State, run_dir: Path) -> Details:
    """Gather everything about one attempt from the state and the run directory."""
    added, removed = size_of(record.proposal.diff)
    parents = parent_runs(record, state)
    return Details(
        attempt=attempt_of(record),
        metric=text.line(state.session.metric),
        under_way=record.verdict is None and record.proposal.ending is None,
        rationale=text.clean(record.proposal.rationale).strip(),
        added=added,
        removed=removed,
        failure=tuple(failure_lines(record, run_dir)),
        phases=tuple(phases(record.runs)),
        curve=tuple(curve_of(run_dir, record.runs)),
        parent_curve=tuple(curve_of(run_dir, parents)),
        weight=state.weights.get(record.number),
        stacked=stacked_runs(record, state),
        parent_values=values_by_seed(parents),
    )


def show_json(details: Details) -> dict[str, Any]:
    record = details.attempt.record
    proposal = record.proposal
    data: dict[str, Any] = {
        "schema": SHOW_SCHEMA,
        **attempt_json(details.attempt),
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
        "failure": list(details.failure),
        "curve": _pairs(details.curve),
        "parent_curve": _pairs(details.parent_curve),
        "measurements": [to_json(run) for run in record.runs],
        "versions": [
            {
                "subject": repair.proposal.subject,
                "diff": repair.proposal.diff,
                "ending": repair.proposal.ending,
                "measurements": [to_json(run) for run in repair.runs],
            }
            for repair in record.repairs
        ],
        "weight": to_json(details.weight),
        "stacked": [
            {"commit": s.run.commit, "seed": s.run.seed, "value": s.run.value, "others": list(s.others)}
            for s in details.stacked
        ],
    }
    cleaned = text.clean_json(data)
    assert isinstance(cleaned, dict)
    return cleaned


def failure_lines(record: Record, run_dir: Path) -> list[str]:
    """Return the decisive lines of the failed run's log; [] if no run failed. The edited code wrote this log."""
    run = next((run for run in (*record.runs, *record.stacks[-1:]) if run.status != "ok"), None)
    if run is None or not record.failed:
        return []
    log = run.log_tail or (_tail(inside(run_dir, run.trace) / "train.log") if run.trace else "")
    return text.decisive_lines(log)


def _pairs(points: Sequence[Point]) -> list[list[float]]:
    return [[point.progress, point.loss] for point in thin(list(points), 500)]


def _tail(path: Path) -> str:
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - TAIL_BYTES))
            return file.read(TAIL_BYTES).decode("utf-8", "replace")
    except OSError:
        return ""
