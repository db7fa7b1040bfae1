"""All runs of a folder, one line each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from agent import text


def runs_table(rows: Iterable[Mapping[str, Any]]) -> RenderableType:
    """Render the objects of ``overnight list --json``."""
    rows = _with_comparisons(rows)
    if not rows:
        return Text("No runs yet. `overnight demo` makes one in a few minutes.")
    table = _Runs(rows)
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


@dataclass(frozen=True)
class _Runs:
    """The table, with as many columns as the console is wide."""

    rows: list[Mapping[str, Any]]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        names = [name for name in _COLUMNS if options.max_width >= _LEAST_WIDTH.get(name, 0)]
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
        for name in names:
            right = name in ("trials", "kept", "failed")
            table.add_column(name, justify="right" if right else "left", no_wrap=name not in ("started", "proposer"))
        for row in self.rows:
            cells = _cells(row)
            table.add_row(*(cells[name] for name in names))
        yield table


_COLUMNS = ("run", "state", "started", "proposer", "trials", "kept", "failed", "best", "gain ± se")
_LEAST_WIDTH = {"started": 96, "proposer": 96, "best": 80, "failed": 68}  # of the console, to show the column


def _cells(row: Mapping[str, Any]) -> dict[str, Text]:
    cells = (
        text.safe(row["tag"], "bold"),
        condition_text(row["state"]),
        _one_line(Text(text.moment(row["started"]))),
        _one_line(text.safe(row["proposer"] or text.MISSING)),
        Text(f"{row['trials']}/{row['planned']}" if row["planned"] else str(row["trials"])),
        Text(str(row["kept"]), style="green" if row["kept"] else ""),
        Text(str(row["failed"]), style="yellow" if row["failed"] else ""),
        Text(f"{row['metric']} {text.number(row['best'], row['self_reported'])}"),
        Text(text.gain(row["gain"], row["gain_se"])),
    )
    return dict(zip(_COLUMNS, cells, strict=True))


def _one_line(cell: Text) -> Text:
    """Cut the cell on a narrow console instead of wrapping it."""
    cell.no_wrap, cell.overflow = True, "ellipsis"
    return cell


def condition_text(name: str) -> Text:
    return Text(name, style={"running": "bold cyan", "ended": "green"}.get(name, "yellow"))
