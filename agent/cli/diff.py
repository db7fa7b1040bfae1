"""``overnight diff``."""

from __future__ import annotations

from agent.cli.options import Commands, add_command
from agent.cli.output import show
from agent.cli.runs import existing, load, repo_of


def add(commands: Commands) -> None:
    parser = add_command(commands, "diff", diff, "tag json moved runs")
    for name in "ab":
        parser.add_argument(name, metavar=name.upper(), help="number of a trial, baseline, or head")


def diff(tag: str, a: str, b: str, json: bool, runs: str, target: str | None) -> int:
    """Compare two attempts of a run: values and changed lines."""
    from agent.review.data.pair import diff_json, pair_of
    from agent.review.terminal.diff import compare_view

    state, settings = load(existing(runs, tag))
    repo = repo_of(settings, target)
    pair = pair_of(state, repo, a, b)
    return show(json, lambda: diff_json(pair), lambda: compare_view(pair))
