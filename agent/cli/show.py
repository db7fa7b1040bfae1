"""``overnight show``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.cli.options import Commands, add_command
from agent.cli.output import show
from agent.cli.runs import existing, load
from agent.errors import UsageError

if TYPE_CHECKING:
    from agent.review.data.attempt import Details
    from agent.rundir.directory import RunDirectory


def add(commands: Commands) -> None:
    parser = add_command(commands, "show", show_attempt, "newest json runs -cache")
    parser.add_argument("number", type=int, metavar="N", help="number of the trial")


def show_attempt(tag: str | None, number: int, json: bool, runs: str) -> int:
    """Show one attempt: diff, reason, loss curve, failure."""
    from agent.review.data.attempt import show_json
    from agent.review.terminal.show import show_view

    found = details(existing(runs, tag), number)
    return show(json, lambda: show_json(found), lambda: show_view(found))


def details(directory: RunDirectory, number: int) -> Details:
    """Everything about one attempt. Raises ``UsageError`` if the run has no such trial."""
    from agent.review.data.attempt import details_of

    state, _ = load(directory)
    record = state.of_trial(number)
    if record is None:
        valid = f"it has 1 to {len(state.records)}" if state.records else "it has none yet"
        raise UsageError(f"run {directory.tag} has no trial {number}: {valid}.")
    return details_of(record, state, directory.path)
