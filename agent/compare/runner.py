"""Run the sessions of a comparison and read their ledgers.

``runs/TAG/`` holds the plan (compare.toml), the table and the page. The session of a method and a seed is the run
``TAG-METHOD-sSEED`` beside it. Only the ledgers say what is done, so the same command continues a comparison.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path

from agent.compare.plan import MOVABLE, Plan
from agent.compare.statistics import Cell, Comparison, cell_of
from agent.ledger.recovery import read_state
from agent.observers.protocol import Observer
from agent.rundir.directory import RunDirectory
from agent.session.parts import assemble
from agent.session.setup import resume, start
from agent.session.stopping import expected_cost, reason_to_end
from agent.settings import NEED_MODEL
from agent.target import load_target


def run_cells(plan: Plan, root: Path, view: Callable[[], Observer], say: Callable[[str], None]) -> bool:
    """Run the sessions that are not complete, one after the other; False if the user stopped one of them."""
    left = [(method, seed) for method, seed in plan.cells if not _read_cell(plan, root, method, seed).complete]
    for method in dict.fromkeys(method for method, _ in left):  # report missing parts before anything runs
        assemble(plan.session(method, 0), lambda _text: None)
    for number, (method, seed) in enumerate(left, start=len(plan.cells) - len(left) + 1):
        say(f"[{number} of {len(plan.cells)}] {method}, seed {seed}")
        settings = dataclasses.replace(plan.session(method, seed), runs=str(root))
        directory = RunDirectory(root, settings.tag)
        if directory.path.exists() and not directory.settings.exists():
            shutil.rmtree(directory.path)  # the session was killed before it wrote its settings
        if directory.path.exists():
            changes = {name: plan.settings[name] for name in MOVABLE if name in plan.settings and name != "runs"}
            resume(root, settings.tag, changes if method in NEED_MODEL else {}, view(), say)
        else:
            start(settings, view(), say)
        if not _read_cell(plan, root, method, seed).complete:
            return False
    return True


def read_comparison(plan: Plan, root: Path) -> Comparison:
    """The results so far, complete or not."""
    target, _ = load_target(Path(plan.settings["target"]))
    cells = (_read_cell(plan, root, method, seed) for method, seed in plan.cells)
    return Comparison(target.metric, target.goal, plan.methods, tuple(cells))


def _read_cell(plan: Plan, root: Path, method: str, seed: int) -> Cell:
    tag = plan.name(method, seed)
    directory = RunDirectory(root, tag)
    if not directory.settings.exists():
        return Cell(method, seed, tag)
    state, _ = read_state(directory.ledger)
    used_up = bool(reason_to_end(state, plan.session(method, seed), expected_cost(state)))
    return cell_of(method, seed, tag, state, state.ended is not None and used_up)
