"""One trial in full: the edit, its purpose, its runs, the failure, and the loss curve beside its parent's.

``show_json`` is schema ``overnight.show/1``. The object of ``log --json`` for this trial, and:

- parent, model, rationale, diff, params (null), transcript
- ending: why the edit never ran (null); verdict: null while the trial is under way
- started, ended: seconds since the epoch (null)
- failure: list of lines
- curve, parent_curve: lists of [progress, loss]
- measurements: one object per run with the fields of the ledger
- versions: one object per repair, with subject, diff, ending and measurements of what was replaced
- weight, policy stacked only: what the edit is worth after its last run (null, or trial, probability, gain, se,
  runs_in, runs_out, mean_in, mean_out, nominated)
- stacked, policy stacked only: runs that carried the edit, with commit, seed, value and others (trials of other edits)

Control characters in texts are spelled out; git has the exact bytes.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent import text
from agent.curves import Point, curve_of, inside, thin
from agent.ledger.state import State
from agent.review.data.attempts import Attempt, attempt_json, attempt_of
from agent.review.data.diffs import size_of
from agent.review.data.edit_runs import StackedRun, parent_runs, stacked_runs, values_by_seed
from agent.types import Record, Weight, to_json

SHOW_SCHEMA = "overnight.show/1"
TAIL_BYTES = 64 << 10


@dataclass(frozen=True)
class Details:
    """One trial in full. ``attempt.record`` holds the proposal and the runs."""

    attempt: Attempt
    metric: str
    rationale: str  # sanitised
    size: tuple[int, int]  # numbers of lines that the diff adds and removes
    failure: tuple[str, ...]  # decisive lines of the failed run's log
    curve: tuple[Point, ...]  # of its first run that has one
    parent_curve: tuple[Point, ...]
    weight: Weight | None  # policy stacked: what the runs say about the edit
    stacked: tuple[StackedRun, ...]  # policy stacked: runs that carried it
    parent_values: Mapping[int, float]  # value of the parent by seed: runs under one seed are a pair


def details_of(record: Record, state: State, run_dir: Path) -> Details:
    """Gather everything about one trial from the state and the run directory."""
    parents = parent_runs(record, state)
    return Details(
        attempt=attempt_of(record),
        metric=text.line(state.session.metric),
        rationale=text.clean(record.proposal.rationale).strip(),
        size=size_of(record.proposal.diff),
        failure=tuple(failure_lines(record, run_dir)),
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
        **{name: getattr(proposal, name) for name in ("model", "rationale", "diff", "ending", "transcript")},
        "params": to_json(proposal.params),
        "verdict": to_json(record.verdict),
        "started": record.started,
        "ended": record.ended,
        "failure": list(details.failure),
        "curve": _pairs(details.curve),
        "parent_curve": _pairs(details.parent_curve),
        "measurements": to_json(record.runs),
        "versions": [
            {
                **{name: getattr(r.proposal, name) for name in ("subject", "diff", "ending")},
                "measurements": to_json(r.runs),
            }
            for r in record.repairs
        ],
        "weight": to_json(details.weight),
        "stacked": [
            {"commit": s.run.commit, "seed": s.run.seed, "value": s.run.value, "others": list(s.others)}
            for s in details.stacked
        ],
    }
    return text.clean_json(data)


def failure_lines(record: Record, run_dir: Path) -> list[str]:
    """Return the decisive lines of the failed run's log; [] if no run failed. The edited code wrote this log."""
    run = next((run for run in (*record.runs, *record.stacks[-1:]) if run.status != "ok"), None)
    if run is None or not record.failed:
        return []
    log = run.log_tail or (end_of(inside(run_dir, run.trace) / "train.log", TAIL_BYTES) if run.trace else "")
    return text.decisive_lines(log)


def _pairs(points: Sequence[Point]) -> list[list[float]]:
    return [[point.progress, point.loss] for point in thin(list(points), 500)]


def end_of(path: Path, most: int) -> str:
    """The last ``most`` bytes of a file as text; "" if the file cannot be read."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - most))
            return file.read(most).decode("utf-8", "replace")
    except OSError:
        return ""
