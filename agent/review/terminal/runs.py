"""All sessions of a folder, one line each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from agent import text
from agent.review.terminal.table import Column, Columns


def runs_table(rows: Iterable[Mapping[str, Any]]) -> RenderableType:
    """Render the objects of ``overnight list --json``."""
    rows = _with_comparisons(rows)
    if not rows:
        return Text("No sessions yet. `overnight demo` makes one in a few minutes.")
    table = Columns(_COLUMNS, rows)
    marked = any(row["self_reported"] for row in rows)
    return Group(table, *([Text(text.LEGEND, style="dim")] if marked else []))


def _with_comparisons(rows: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """One row for all sessions of a comparison, in the place of the first."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault(row.get("comparison") or f"run {row['tag']}", []).append(row)
    return [_comparison_row(name, group) if group[0].get("comparison") else group[0] for name, group in groups.items()]


def _comparison_row(name: str, rows: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    states = {row["state"] for row in rows}
    values = [row["best"] for row in rows if row["best"] is not None]
    best = max if rows[0]["goal"] == "maximize" else min
    planned = [row["planned"] for row in rows]
    sums = {key: sum(row[key] for row in rows) for key in ("trials", "kept", "failed")}
    return {
        **rows[0],
        **sums,
        "tag": f"{name}: {text.count(len(rows), 'session')}",
        "state": "running" if "running" in states else "ended" if states == {"ended"} else "interrupted",
        "proposer": ", ".join(dict.fromkeys(row["proposer"] for row in rows)),
        "planned": sum(planned) if all(planned) else None,
        "best": best(values, default=None),
        "gain": None,
        "gain_se": None,
    }


def condition_text(name: str) -> Text:
    return Text(name, style={"running": "bold cyan", "ended": "green"}.get(name, "yellow"))


_COLUMNS = (
    Column("session", lambda row: text.safe(row["tag"], "bold")),
    Column("state", lambda row: condition_text(row["state"])),
    Column("started", lambda row: text.moment(row["started"]), least=96, cut=True),
    Column("proposer", lambda row: text.safe(row["proposer"] or text.MISSING), least=96, cut=True),
    Column("trials", lambda row: f"{row['trials']}/{row['planned']}" if row["planned"] else str(row["trials"]), True),
    Column("kept", lambda row: Text(str(row["kept"]), style="green" if row["kept"] else ""), right=True),
    Column("failed", lambda row: Text(str(row["failed"]), style="yellow" if row["failed"] else ""), True, least=68),
    Column("best", lambda row: f"{row['metric']} {text.number(row['best'], row['self_reported'])}", least=80),
    Column("gain ± se", lambda row: text.gain(row["gain"], row["gain_se"])),
)
