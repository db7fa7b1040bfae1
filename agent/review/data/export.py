"""The record of a run for other programs: the published results.tsv, csv, or json.

``export_json`` is schema ``overnight.export/1``: an object with schema, session (the ledger's first event), baseline
(value, runs and measurements), attempts (the objects of ``log --json``, each with its measurements, params and diff)
and branch. Texts are as recorded, with escape sequences that a model wrote.
"""

from __future__ import annotations

import csv
import io
import json
from typing import Any

from agent.ledger.events import fields_of
from agent.ledger.state import State
from agent.review.data.attempts import attempt_json, attempt_of
from agent.rundir.results import TSV_HEADER, result_line
from agent.types import to_json

EXPORT_SCHEMA = "overnight.export/1"
FORMATS = ("tsv", "csv", "json")


def export(state: State, kind: str) -> str:
    """Return the record of a run in one of ``FORMATS``."""
    if kind == "tsv":
        records = [state.baseline_record, *state.finished] if 0 in state.told else []
        return TSV_HEADER + "".join(result_line(record, state.session.goal) for record in records)
    if kind == "csv":
        return export_csv(state)
    return json.dumps(export_json(state), indent=1, ensure_ascii=True, allow_nan=False) + "\n"


def export_csv(state: State) -> str:
    """Return one row per finished attempt, with the keys of ``log --json`` as columns."""
    rows = [attempt_json(attempt_of(record)) for record in state.finished]
    columns = list(rows[0]) if rows else ["trial", "decision", "status", "value"]
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: _inert(value) for key, value in row.items()} for row in rows)
    return out.getvalue()


def _inert(value: Any) -> Any:
    """Put a quote before a text that a spreadsheet would read as a formula."""
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@") else value


def export_json(state: State) -> dict[str, Any]:
    return {
        "schema": EXPORT_SCHEMA,
        "session": fields_of(state.session),
        "baseline": {
            "commit": state.baseline,
            "value": state.baseline_record.verdict.value if state.baseline_record.verdict else None,
            "measurements": [to_json(run) for run in state.baseline_runs],
        },
        "branch": {"name": f"autoresearch/{state.session.tag}", "head": state.head},
        "attempts": [
            {
                **attempt_json(attempt_of(record)),
                "params": to_json(record.proposal.params),
                "rationale": record.proposal.rationale,
                "diff": record.proposal.diff,
                "measurements": [to_json(run) for run in record.runs],
            }
            for record in state.finished
        ],
    }
