"""results.tsv, the published autoresearch format: one reader, one writer.

Columns: commit, the metric, memory_gb, status (keep, discard or crash) and description. A crash has the value 0.000000.
Readers of the format take lower values for better, so a maximised metric is written with its sign changed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from agent.errors import UsageError
from agent.files import replace_file
from agent.types import Goal, Record, minimised

STATUSES = ("keep", "discard", "crash")
COLUMNS = ("commit", "val_bpb", "memory_gb", "status", "description")
TSV_HEADER = "\t".join(COLUMNS) + "\n"


@dataclass(frozen=True)
class Row:
    """One attempt."""

    line: int  # in the file, from 1
    commit: str
    value: float | None  # None for a failed run
    memory_gb: float | None
    status: str
    description: str


def read_tsv(path: Path) -> list[Row]:
    """Read the attempts of a list in order; see ``parse_tsv``."""
    try:
        return parse_tsv(path.read_text(encoding="utf-8-sig", errors="replace"), str(path))
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}.") from None


def parse_tsv(text: str, where: str) -> list[Row]:
    """Parse the attempts of a list in order. The second column holds the metric and may have any name.

    Args:
        where: Name of the list in messages.

    Raises:
        UsageError: A column is missing, a value is not a number, or no run has a value. Names the line.
    """
    first, *lines = text.removeprefix("\ufeff").split("\n")  # splitlines() also splits at U+2028
    names = [name.strip() for name in first.split("\t")]
    metric = next((name for name in names[1:2] if name not in COLUMNS), "val_bpb")
    missing = [name for name in ("commit", metric, "memory_gb", "status") if name not in names]
    if missing:
        needed = f"line 1 must name the columns {', '.join(COLUMNS)}, with tabs between"
        raise UsageError(f"{where}: {needed}; it lacks {', '.join(missing)}.")
    rows = [
        _row(where, number, dict(zip(names, line.rstrip("\r").split("\t"), strict=False)), metric)
        for number, line in enumerate(lines, start=2)
        if line.strip("\r")
    ]
    if all(row.value is None for row in rows):
        raise UsageError(f"{where} holds no run that worked.")
    return rows


def _row(where: str, line: int, fields: Mapping[str, str], metric: str) -> Row:
    status = fields.get("status", "").strip().lower()
    value = None if status == "crash" else number_or_none(fields.get(metric))
    if value is None and status == "keep":
        raise UsageError(f"{where}, line {line}: {metric} of a kept run is {fields.get(metric)!r}, which is no number.")
    if value and status not in STATUSES:
        raise UsageError(f"{where}, line {line}: unknown status {status!r}; the list may hold {', '.join(STATUSES)}.")
    return Row(
        line=line,
        commit=fields.get("commit", "").strip(),
        value=value if value or status == "keep" else None,
        memory_gb=number_or_none(fields.get("memory_gb")) or None,
        status=status,
        description=fields.get("description", ""),
    )


def values_of_results(text: str, where: str, goal: Goal = "minimize") -> dict[str, float]:
    """Return the values of a list by short commit hash, without failed runs; see ``parse_tsv``.

    Negative values of a maximised metric get their sign back.
    """
    found = {row.commit[:7]: row.value for row in parse_tsv(text, where) if row.value is not None}
    negated = goal == "maximize" and all(value <= 0 for value in found.values())
    return {commit: -value if negated else value for commit, value in found.items()}


def number_or_none(text: str | None) -> float | None:
    """Return the finite number that a text starts with, as in ``1.03 (self-reported)``; None if there is none."""
    first = (text or "").split()[:1]
    try:
        value = float(first[0]) if first and "_" not in first[0] else math.nan
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def append_result(path: Path, record: Record, goal: Goal = "minimize") -> None:
    """Append a finished trial to the list, which is made with the first."""
    new = not path.exists()
    with path.open("a", encoding="utf-8") as file:
        file.write((TSV_HEADER if new else "") + result_line(record, goal))


def rewrite_results(path: Path, records: Iterable[Record], goal: Goal = "minimize") -> None:
    replace_file(path, TSV_HEADER + "".join(result_line(record, goal) for record in records))


def result_line(record: Record, goal: Goal = "minimize") -> str:
    """Return the line of one finished trial."""
    value = record.verdict.value if record.verdict else None
    note = ""
    for run in record.runs:
        if run.status == "stopped" and run.prediction is not None:
            value, note = run.prediction.value, " (run stopped; value predicted)"
    shown = None if value is None else minimised(value, goal)
    memory = max((run.peak_memory_gb or 0.0 for run in record.runs), default=0.0)
    status = "crash" if value is None else "keep" if record.decision == "keep" else "discard"
    text = re.sub(r"\s+", " ", record.proposal.subject or record.proposal.reason or record.status) + note
    return f"{(record.candidate or '-------')[:7]}\t{_published(shown)}\t{memory:.1f}\t{status}\t{text}\n"


def _published(value: float | None) -> str:
    """Six decimals, or six digits of a small value, which must not look like a failed run."""
    return f"{value or 0.0:.6f}" if not value or abs(value) >= 0.001 else f"{value:.6g}"
