"""What the smoke test of the current file measured, as tables for the prompt.

The edited code could have changed the figures: they are information, and every text is cleaned and cut.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from agent.curves import Point, curve_of, inside
from agent.llm.prompts import block, one_line
from agent.proposers.protocol import Context
from agent.types import Measurement, Record, is_number

MAX_BYTES = 1 << 16
PHASES = ("data", "forward", "backward", "optimiser", "other")
SHARES = (0.25, 0.5, 0.75, 1.0)  # of the budget, at which losses are compared


def diagnostics(context: Context) -> str:
    """Tables of the first run of the current file that has diagnostics; "" without one."""
    if context.run_directory is None:
        return ""
    for run in context.incumbent_runs:
        if run.trace and (found := _read(inside(context.run_directory, run.trace) / "diagnostics.json")):
            tables = [_phases(found), _operations(found), _groups(found)]
            if text := "\n\n".join(table for table in tables if table):
                return f"One step of the current file, measured in its smoke test:\n\n{block(text, 'text')}"
    return ""


def losses(record: Record, context: Context) -> str:
    """Training loss of an attempt and of the current file at equal progress, on one line; "" if one is not known."""
    if context.run_directory is None:
        return ""
    own, best = (curve_of(context.run_directory, runs) for runs in (shown_runs(record), context.incumbent_runs))
    if not own or not best or {run.trace for run in record.runs} & {run.trace for run in context.incumbent_runs}:
        return ""
    pairs = [
        (share, _loss_at(own, share), _loss_at(best, share)) for share in SHARES if own[-1].progress >= share - 0.1
    ]
    shown = (f"{a:.3f} / {b:.3f} at {share:.0%}" for share, a, b in pairs)
    return f"Training loss, this attempt / current file: {', '.join(shown)}." if pairs else ""


def shown_runs(record: Record) -> tuple[Measurement, ...]:
    """The runs of an attempt without those on the test split."""
    return tuple(run for run in record.runs if run.role != "test")


def _loss_at(curve: Sequence[Point], share: float) -> float:
    """The loss at the point nearest to a share of the budget."""
    return min(curve, key=lambda point: abs(point.progress - share)).loss


def _read(path: Path) -> Mapping[str, Any]:
    try:
        with path.open("rb") as file:
            found = json.loads(file.read(MAX_BYTES))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _figure(value: Any) -> float:
    """A finite number, or 0."""
    return float(value) if is_number(value) and abs(value) < 1e15 else 0.0


def _rows(found: Mapping[str, Any], name: str) -> list[Any]:
    rows = found.get(name)
    return rows[:12] if isinstance(rows, list) else []


def _phases(found: Mapping[str, Any]) -> str:
    phases = found.get("phases")
    ms = {name: _figure(phases.get(name)) for name in PHASES} if isinstance(phases, dict) else {}
    whole = sum(ms.values())
    shown = ", ".join(f"{name} {figure:.3g} ms ({figure / whole:.0%})" for name, figure in ms.items()) if whole else ""
    return f"time: {shown}" if shown else ""


def _operations(found: Mapping[str, Any]) -> str:
    rows = [row for row in _rows(found, "operations") if isinstance(row, list) and len(row) == 3]
    lines = [f"{_figure(ms):>9.3g} {_figure(n):>6.0f}  {one_line(str(name), 60)}" for name, n, ms in rows]
    return "\n".join(["costliest operations\n       ms  calls  name", *lines]) if lines else ""


def _groups(found: Mapping[str, Any]) -> str:
    lines = []
    for row in _rows(found, "groups"):
        if isinstance(row, dict):
            count, gradient, update, weight = (
                _figure(row.get(k)) for k in ("parameters", "gradient", "update", "weight")
            )
            ratio = f"{update / weight:.2g}" if weight else "-"
            name = one_line(str(row.get("name")), 40)
            lines.append(f"{count:>10.3g} {gradient:>9.2e} {update:>9.2e} {ratio:>13}  {name}")
    head = "norms at the full learning rate\nparameters  gradient    update update/weight  group"
    return "\n".join([head, *lines]) if lines else ""
