"""``overnight compare``."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Any

from agent.cli.output import live_view, say, show
from agent.compare import view as views
from agent.compare.plan import make_plan
from agent.compare.runner import read_comparison, run_cells
from agent.errors import UsageError
from agent.rundir.directory import RunDirectory


def compare(
    methods: str | None, seeds: int | None, tag: str, json: bool, csv: bool, config: Path | None, **flags: Any
) -> int:
    """Returns 130 if it stopped before every session was complete, else 0."""
    root = Path(flags.get("runs", "runs"))
    if tag and RunDirectory(root, tag).running():
        raise UsageError(f"comparison {tag} is already running. `overnight list` shows its sessions.")
    plan = make_plan(methods, seeds, tag, config, flags)
    home = RunDirectory(root, plan.tag)
    with home.lock():
        complete = run_cells(plan, root, live_view, say)
    comparison = read_comparison(plan, root)
    page = views.write_files(comparison, plan, home.path)
    if csv:
        sys.stdout.write(views.comparison_csv(comparison))
    else:
        as_json = partial(views.comparison_json, tag=plan.tag)
        show(json, comparison, as_json, views.comparison_table, paged=False)
    say(f"the page: {page}")
    if not complete:
        say(f"stopped. `overnight compare --tag {plan.tag}` continues it.")
    return 0 if complete else 130
