"""The edits of a run, as a table for people and as a list for programs.

``log_json`` is schema ``overnight.log/1``: a list with one object per finished attempt, in order. Keys:
schema, trial, decision (keep, revert), status (ok, a failure, or why it never ran), value (null for a failure),
best_before, gain (positive is better), gain_se, commit (the attempt's; null if there is none), accepted (on the branch;
null), runs (how many on the validation split), seconds (of all its runs), subject, category, source, proposer, reason,
self_reported. Keys may be added within a schema; none changes its meaning.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from agent import text
from agent.ledger.state import State
from agent.review.data.diffs import diff_lines
from agent.review.data.summary import cost
from agent.types import Proposal, Record

SCHEMA = "overnight.log/1"


def log_json(state: State, status: str = "", source: str = "", words: str = "") -> list[dict[str, Any]]:
    return [{"schema": SCHEMA, **attempt_json(record)} for record in select(state.finished, status, source, words)]


def attempt_json(record: Record) -> dict[str, Any]:
    verdict, proposal = record.verdict, record.proposal
    return {
        "trial": record.number,
        "decision": record.decision,
        "status": record.status,
        "value": verdict.value if verdict else None,
        "best_before": verdict.best_before if verdict else None,
        "gain": verdict.gain if verdict else None,
        "gain_se": verdict.gain_se if verdict else None,
        "commit": record.candidate,
        "accepted": record.accepted,
        "runs": sum(1 for run in record.runs if run.role != "test"),
        "seconds": round(cost(record), 3),
        "subject": text.line(proposal.subject),
        "category": text.line(proposal.category),
        "source": text.line(proposal.source),
        "proposer": text.line(proposal.proposer),
        "reason": text.line(reason(record)),
        "self_reported": any(run.self_reported for run in record.runs),
    }


def reason(record: Record) -> str:
    """Why it ended as it did: the failure before the verdict, which would only repeat that it failed."""
    failed = next((run.reason for run in record.runs if run.status != "ok" and run.reason), "")
    return record.proposal.reason or failed or (record.verdict.reason if record.verdict else "")


def select(records: Iterable[Record], status: str = "", source: str = "", words: str = "") -> list[Record]:
    """The records with this status (or decision), from this source, and with these words in what was proposed."""
    return [
        record
        for record in records
        if (not status or status in (record.status, record.decision))
        and (not source or record.proposal.source == source)
        and (not words or words.lower() in _proposed(record.proposal).lower())
    ]


def _proposed(proposal: Proposal) -> str:
    """What was said of an edit, and the lines that it changes: a subject names only the first of many values."""
    changed = [row for kind, row in diff_lines(proposal.diff) if kind in ("added", "removed")]
    return "\n".join((proposal.subject, proposal.rationale, proposal.category, *changed))


def outcome_of(record: Record) -> str:
    """The decision about a measured attempt, or why it has no value."""
    return record.decision if record.status == "ok" else record.status
