"""The trials of a session, as data for tables and as a list for programs.

``log_json`` is schema ``overnight.log/1``, a list with one object per finished trial, in order:

- trial, subject, category, source, proposer
- decision: keep or revert; status: ok, stopped, a failure, or why the edit never ran; reason
- value (null for a failure and for a stopped run), best_before, gain (positive is better; of a stopped run the
  prediction), gain_se, self_reported
- commit: of the candidate (null if there is none); accepted: the commit on the branch (null)
- runs: on the validation split; under policy stacked, those that carried the edit
- seconds: of the trial's runs
- idea: of the bank, which the edit takes up, or empty
- loop: why the model's answers count as a loop, so that the source stands in for the model; or empty
- repairs: requests to the model to repair an edit that failed before training

Keys may be added within a schema. None changes its meaning.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, get_args, get_type_hints

from agent import text
from agent.review.data.diffs import diff_lines
from agent.review.data.summary import test_problem
from agent.review.data.times import cost
from agent.types import Proposal, Record, on_validation

LOG_SCHEMA = "overnight.log/1"
HIDDEN = ("outcome", "problem", "record")  # fields of an attempt that ``log --json`` leaves out


@dataclass(frozen=True)
class Attempt:
    """One trial. Texts are sanitised and on one line; gains are positive when better."""

    trial: int
    decision: str  # keep or revert
    status: str  # ok, a failure, or why it never ran
    outcome: str  # the decision if the attempt was measured, else the status
    value: float | None  # None for a failure
    best_before: float | None
    gain: float | None
    gain_se: float | None
    commit: str | None
    accepted: str | None  # commit on the branch
    runs: int  # on the validation split
    seconds: float  # of all its runs, without those that carried other edits, too
    repairs: int  # requests to repair an edit that failed before training
    subject: str
    category: str
    source: str
    proposer: str
    idea: str  # of the bank that the edit takes up
    loop: str  # why the model's answers count as a loop
    reason: str  # why it ended with this outcome
    problem: str  # why it has no value, on either split; "" if it has
    self_reported: bool
    record: Record = field(repr=False)  # the attempt as recorded, with texts that are not sanitised


def attempt_of(record: Record) -> Attempt:
    verdict, proposal, runs = record.verdict, record.proposal, (*record.runs, *record.stacks)
    why = reason(record)
    return Attempt(
        trial=record.number,
        decision=record.decision,
        status=record.status,
        outcome=record.decision if record.status == "ok" else record.status,
        value=verdict.value if verdict else None,
        best_before=verdict.best_before if verdict else None,
        gain=verdict.gain if verdict else None,
        gain_se=(verdict.gain_se or None) if verdict else None,
        commit=record.candidate,
        accepted=record.accepted,
        runs=len(on_validation(runs)),
        seconds=cost(record),
        repairs=len(record.repairs),
        subject=text.line(proposal.subject),
        category=text.line(proposal.category),
        source=text.line(proposal.source),
        proposer=text.line(proposal.proposer),
        idea=text.line(proposal.ideas.taken if proposal.ideas else ""),
        loop=text.line(proposal.loop),
        reason=text.line(why),
        problem=text.line(why if record.status != "ok" else test_problem(record.runs)),
        self_reported=any(run.self_reported for run in runs),
        record=record,
    )


def log_json(attempts: Iterable[Attempt]) -> list[dict[str, Any]]:
    return [{"schema": LOG_SCHEMA, **attempt_json(attempt)} for attempt in attempts]


@cache
def attempt_columns() -> dict[str, type]:
    """The keys of ``attempt_json`` with the types of their values, which may also be None."""
    hints = get_type_hints(Attempt)
    return {name: (get_args(hint) or (hint,))[0] for name, hint in hints.items() if name not in HIDDEN}


def attempt_json(attempt: Attempt) -> dict[str, Any]:
    return {name: getattr(attempt, name) for name in attempt_columns()} | {"seconds": round(attempt.seconds, 3)}


def reason(record: Record) -> str:
    """Return why a trial ended with its outcome: the failure of a run before the verdict, which only repeats it."""
    failed = next((run.reason for run in record.runs if run.status != "ok" and run.reason), "")
    return record.proposal.reason or failed or (record.verdict.reason if record.verdict else "")


def select(attempts: Sequence[Attempt], status: str = "", source: str = "", words: str = "") -> list[Attempt]:
    """Return the attempts with this status or decision, from this source, and with these words in the proposal."""
    return [
        attempt
        for attempt in attempts
        if (not status or status in (attempt.status, attempt.decision))
        and (not source or attempt.record.proposal.source == source)
        and (not words or words.lower() in _searchable(attempt.record.proposal).lower())
    ]


def _searchable(proposal: Proposal) -> str:
    """The texts of a proposal and the lines that it changes: a subject names only the first of many changed values."""
    changed = [row for kind, row in diff_lines(proposal.diff) if kind in ("added", "removed")]
    return "\n".join((proposal.subject, proposal.rationale, proposal.category, *changed))
