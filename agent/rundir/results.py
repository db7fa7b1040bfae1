"""results.tsv, the published autoresearch format: reading and writing."""

from __future__ import annotations

import csv
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.errors import UsageError
from agent.types import Record

COLUMNS = ("commit", "val_bpb", "memory_gb", "status", "description")


@dataclass(frozen=True)
class Row:
    """One attempt. ``value`` is None for a run that failed."""

    line: int
    commit: str
    value: float | None
    memory_gb: float | None
    status: str
    description: str


def read_tsv(path: Path) -> list[Row]:
    """The attempts of a list, in its order.

    Raises:
        UsageError: no such file, not a table with these columns, or a value that is no number; names the line.
    """
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}.") from None
    lines = csv.DictReader(text.splitlines(), delimiter="\t", quoting=csv.QUOTE_NONE)
    missing = [name for name in COLUMNS[:4] if name not in (lines.fieldnames or ())]
    if missing:
        raise UsageError(f"{path}: line 1 must name the columns {', '.join(COLUMNS)}; it lacks {', '.join(missing)}.")
    rows = [_row(path, number, fields) for number, fields in enumerate(lines, start=2)]
    if not any(row.value is not None for row in rows):
        raise UsageError(f"{path} holds no run that worked: there is nothing to judge.")
    return rows


def _row(path: Path, number: int, fields: dict[str, Any]) -> Row:
    value = _number(path, number, "val_bpb", fields.get("val_bpb"))
    memory = _number(path, number, "memory_gb", fields.get("memory_gb") or "0")
    failed = value == 0.0 or fields.get("status") == "crash"
    return Row(
        number,
        str(fields.get("commit") or ""),
        None if failed else value,
        memory or None,
        str(fields.get("status") or ""),
        str(fields.get("description") or ""),
    )


def _number(path: Path, line: int, column: str, text: str | None) -> float:
    try:
        number = float(text or "")
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise UsageError(f"{path}, line {line}: {column} is {text!r}, which is no number.")
    return number


TSV_HEADER = "commit\tval_bpb\tmemory_gb\tstatus\tdescription\n"


def result_line(record: Record) -> str:
    value = record.verdict.value if record.verdict and record.verdict.value is not None else None
    memory = max((run.peak_memory_gb or 0.0 for run in record.runs), default=0.0)
    status = "crash" if value is None else "keep" if record.decision == "keep" else "discard"
    text = re.sub(r"\s+", " ", record.proposal.subject or record.proposal.reason or record.status)
    return f"{(record.candidate or '-------')[:7]}\t{value or 0.0:.6f}\t{memory:.1f}\t{status}\t{text}\n"


def values_of_results(text: str, where: str) -> dict[str, float]:
    """Values by short commit hash from a published results.tsv; rows of crashes are left out.

    Raises:
        UsageError: the text has no columns commit and value.
    """
    lines = [line.split("\t") for line in text.splitlines() if line.strip()]
    if not lines or lines[0][0] != "commit" or len(lines[0]) < 2:
        raise UsageError(f"{where}: the first line must name the columns: commit, the metric, memory_gb, status, …")
    values = {}
    for row in lines[1:]:
        value = number_or_none(row[1]) if len(row) > 1 else None
        if value:  # 0.000000 stands for a crash in this format
            values[row[0].strip()[:7]] = value
    return values


def number_or_none(text: str | None) -> float | None:
    try:
        value = float((text or "").split()[0])  # "1.03 (self-reported)"
    except (ValueError, IndexError):
        return None
    return value if math.isfinite(value) else None
