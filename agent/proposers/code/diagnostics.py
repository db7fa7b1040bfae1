"""What the smoke test of the current file measured, as tables for the prompt.

The edited code could have changed the figures: they are information, and every text is cleaned and cut.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import msgspec

from agent.curves import Point, curve_of, inside
from agent.llm.prompts import block, one_line
from agent.proposers.protocol import Context
from agent.types import Record, on_validation

MAX_BYTES = 1 << 16
MOST_ROWS = 12  # of a table
PHASES = ("data", "forward", "backward", "optimiser", "other")
SHARES = (0.25, 0.5, 0.75, 1.0)  # of the budget, at which losses are compared


class _Group(msgspec.Struct):
    """Norms of a group of parameters."""

    name: str
    parameters: float
    gradient: float
    update: float
    weight: float


class _Found(msgspec.Struct):
    """The file diagnostics.json."""

    phases: dict[str, float] = {}  # ms
    operations: list[tuple[str, float, float]] = []  # name, calls, ms
    groups: list[_Group] = []


def diagnostics(context: Context) -> str:
    """Tables of the first run of the current file that has diagnostics; "" without one."""
    if context.run_directory is None:
        return ""
    for run in context.incumbent_runs:
        if run.trace and (text := _tables(inside(context.run_directory, run.trace) / "diagnostics.json")):
            return f"One step of the current file, measured in its smoke test:\n\n{block(text, 'text')}"
    return ""


def _tables(path: Path) -> str:
    try:
        with path.open("rb") as file:
            found = msgspec.convert(json.loads(file.read(MAX_BYTES)), _Found)
    except (OSError, ValueError, RecursionError):
        return ""
    tables = []
    if whole := sum(found.phases.get(name, 0.0) for name in PHASES):
        ms = [(name, found.phases.get(name, 0.0)) for name in PHASES]
        tables.append("time: " + ", ".join(f"{name} {figure:.3g} ms ({figure / whole:.0%})" for name, figure in ms))
    if found.operations:
        lines = [f"{ms:>9.3g} {n:>6.6g}  {one_line(name, 60)}" for name, n, ms in found.operations[:MOST_ROWS]]
        tables.append("\n".join(["costliest operations\n       ms  calls  name", *lines]))
    if found.groups:
        head = "norms at the full learning rate\nparameters  gradient    update update/weight  group"
        tables.append("\n".join([head, *map(_group, found.groups[:MOST_ROWS])]))
    return "\n\n".join(tables)


def _group(row: _Group) -> str:
    ratio = f"{row.update / row.weight:.2g}" if row.weight else "-"
    return f"{row.parameters:>10.3g} {row.gradient:>9.2e} {row.update:>9.2e} {ratio:>13}  {one_line(row.name, 40)}"


def losses(record: Record, context: Context) -> str:
    """Training loss of a trial and of the current file at equal progress, on one line; "" if one is not known."""
    if context.run_directory is None:
        return ""
    own, best = (curve_of(context.run_directory, runs) for runs in (on_validation(record.runs), context.incumbent_runs))
    if not own or not best or {run.trace for run in record.runs} & {run.trace for run in context.incumbent_runs}:
        return ""
    pairs = [
        (share, _loss_at(own, share), _loss_at(best, share)) for share in SHARES if own[-1].progress >= share - 0.1
    ]
    shown = (f"{a:.3f} / {b:.3f} at {share:.0%}" for share, a, b in pairs)
    return f"Training loss, this trial / current file: {', '.join(shown)}." if pairs else ""


def _loss_at(curve: Sequence[Point], share: float) -> float:
    """The loss at the point nearest to a share of the budget."""
    return min(curve, key=lambda point: abs(point.progress - share)).loss
