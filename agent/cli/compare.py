"""``overnight compare``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from agent.cli.options import Commands, add_command, add_settings
from agent.cli.output import live_view, say, show
from agent.errors import UsageError


def add(commands: Commands) -> None:
    parser = add_command(commands, "compare", compare, "json", usage="overnight compare [OPTIONS]")
    parser.add_argument("--methods", metavar="A,B,…", help="methods to compare (default: cma-es,tpe,random)")
    parser.add_argument("--seeds", type=int, metavar="N", help="sessions per method (default: 3)")
    parser.add_argument("--tag", default="", help="name of the comparison; an existing comparison continues")
    parser.add_argument("--csv", action="store_true", help="print CSV, one line per session")
    add_settings(parser, leave_out=("tag", "proposer", "seed", "hours", "until", "detach"))


def compare(
    methods: str | None = None,
    seeds: int | None = None,
    tag: str = "",
    json: bool = False,
    csv: bool = False,
    config: Path | None = None,
    **flags: Any,
) -> int:
    """Compare methods over several seeds under one budget, with significance tests.

    Returns:
        130 if it stopped before every session was complete, else 0.
    """
    from agent.compare import view as views
    from agent.compare.plan import make_plan
    from agent.compare.runner import read_comparison, run_cells
    from agent.rundir.directory import RunDirectory

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
        data, table = lambda: views.comparison_json(comparison, plan.tag), lambda: views.comparison_table(comparison)
        show(json, data, table, paged=False)
    say(f"the page: {page}")
    if not complete:
        say(f"stopped. `overnight compare --tag {plan.tag}` continues it.")
    return 0 if complete else 130
