"""``overnight compare``: run the plan, print and write the table."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from agent.cli.output import say
from agent.compare.plan import make_plan
from agent.compare.runner import read_comparison, run_cells
from agent.errors import UsageError
from agent.rundir.directory import RunDirectory


def compare(
    methods: str | None = None,
    seeds: int | None = None,
    tag: str = "",
    json: bool = False,
    csv: bool = False,
    config: Path | None = None,
    **flags: Any,
) -> int:
    """The command. Returns 130 if it was stopped before every cell was complete."""
    from agent.cli.output import live_view, show
    from agent.compare import view as views

    root = Path(flags.get("runs", "runs"))
    if tag and RunDirectory(root, tag).running():
        raise UsageError(f"comparison {tag} is going on already. `overnight list` shows its sessions.")
    plan = make_plan(methods, seeds, tag, config, flags)
    home = RunDirectory(root, plan.tag)
    with home.lock():
        complete = run_cells(plan, root, live_view, say)
    comparison = read_comparison(plan, root)
    page = views.write_files(comparison, plan, home.path)
    if csv:
        sys.stdout.write(views.comparison_csv(comparison))
    else:
        data, table = lambda: views.comparison_json(comparison, plan.tag), lambda: views.comparison_table(comparison)
        show(json, data, table, paged=False)
    say(f"the page: {page}")
    if not complete:
        say(f"stopped; `overnight compare --tag {plan.tag}` goes on.")
    return 0 if complete else 130
