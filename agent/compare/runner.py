"""``overnight compare``: methods × seeds under one budget, each cell a session of its own.

A comparison is a folder ``runs/<tag>/`` with its plan (compare.toml), its table and its page; the cell of a method and
a seed is the run ``<tag>-<method>-s<seed>`` beside it, which every other command knows. What is done is read from the
cells' ledgers alone: the same command again goes on where it stood.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from agent.compare.plan import MOVABLE, Plan
from agent.compare.statistics import Cell, Contrast, cell_of
from agent.ledger.recovery import read_state
from agent.rundir.directory import RunDirectory
from agent.settings import NEED_MODEL
from agent.target import load_target

if TYPE_CHECKING:
    from agent.observers.protocol import Observer


def run_cells(plan: Plan, root: Path, view: Callable[[], Observer], tell: Callable[[str], None]) -> bool:
    """Bring every cell to its end, one after the other; False if the user stopped one of them."""
    from agent.session import setup as launch
    from agent.session.parts import assemble

    todo = [(m, s) for m, s in plan.cells if not is_complete(plan, root, m, s)]
    for method in dict.fromkeys(m for m, _ in todo):  # what is missing is said before anything runs
        assemble(plan.session(method, 0), lambda _text: None)
    done = len(plan.cells) - len(todo)
    for method, seed in todo:
        tell(f"[{done + 1} of {len(plan.cells)}] {method}, seed {seed}")
        settings = dataclasses.replace(plan.session(method, seed), runs=str(root))
        directory = RunDirectory(root, settings.tag)
        if directory.path.exists() and not directory.settings.exists():
            shutil.rmtree(directory.path)  # killed before anything was written down
        if directory.path.exists():
            changes = {k: plan.settings[k] for k in MOVABLE if k in plan.settings and k != "runs"}
            launch.resume(root, settings.tag, changes if method in NEED_MODEL else {}, view(), tell)
        else:
            launch.start(settings, view(), tell)
        if not is_complete(plan, root, method, seed):
            return False
        done += 1
    return True


def is_complete(plan: Plan, root: Path, method: str, seed: int) -> bool:
    """Whether a cell has used up its budget, by its ledger."""
    from agent.session.stopping import expected_cost, reason_to_end

    directory = RunDirectory(root, plan.name(method, seed))
    if not directory.settings.exists():
        return False
    state, _ = read_state(directory.ledger)
    return state.ended is not None and bool(reason_to_end(state, plan.session(method, seed), expected_cost(state)))


def read_contrast(plan: Plan, root: Path) -> Contrast:
    """What the cells hold now, complete or not."""
    target, _ = load_target(Path(plan.settings["target"]))
    cells = []
    for method, seed in plan.cells:
        tag = plan.name(method, seed)
        directory = RunDirectory(root, tag)
        if not directory.settings.exists():
            cells.append(Cell(method, seed, tag))
            continue
        state, _ = read_state(directory.ledger)
        cells.append(cell_of(method, seed, tag, state, is_complete(plan, root, method, seed)))
    return Contrast(target.metric, target.goal, plan.methods, tuple(cells))
