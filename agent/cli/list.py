"""``overnight list``."""

from __future__ import annotations

from agent.cli.options import Commands, add_command
from agent.cli.output import say, show
from agent.cli.runs import folder_of_runs


def add(commands: Commands) -> None:
    add_command(commands, "list", list_runs, "json runs -cache")


def list_runs(json: bool, runs: str) -> int:
    """List the runs."""
    from agent.review.data.run_index import overview
    from agent.review.terminal.runs import runs_table
    from agent.rundir.directory import find_replays

    folder = folder_of_runs(runs)
    rows = overview(folder, say)
    show(json, lambda: rows, lambda: runs_table(rows))
    if others := find_replays(folder):
        say(f"Replays and promotions: {', '.join(others)}. `overnight watch NAME` shows one.")
    return 0
