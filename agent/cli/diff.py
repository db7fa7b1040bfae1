"""``overnight diff``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.cli.options import Commands, add_command
from agent.cli.output import show
from agent.cli.runs import existing, load, repo_of

if TYPE_CHECKING:
    from agent.review.data.pair import Pair
    from agent.rundir.directory import RunDirectory


def add(commands: Commands) -> None:
    parser = add_command(commands, "diff", diff, "tag json moved runs")
    for name in "ab":
        parser.add_argument(name, metavar=name.upper(), help="number of a trial, baseline, or head")


def diff(tag: str, a: str, b: str, json: bool, runs: str, target: str | None) -> int:
    """Compare two attempts of a run: values and changed lines."""
    from agent.review.data.pair import diff_json
    from agent.review.terminal.diff import compare_view

    found = pair(existing(runs, tag), a, b, target)
    return show(json, lambda: diff_json(found), lambda: compare_view(found))


def pair(directory: RunDirectory, a: str, b: str, target: str | None) -> Pair:
    """Two attempts side by side; ``target`` replaces the recorded folder of the target."""
    from agent.review.data.pair import pair_of

    state, settings = load(directory)
    return pair_of(state, repo_of(settings, target), a, b)
