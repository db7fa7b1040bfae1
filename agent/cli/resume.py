"""``overnight resume``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from agent.cli.options import Commands, add_command, add_settings
from agent.cli.output import live_view, say
from agent.cli.run import finish
from agent.cli.runs import existing, load


def add(commands: Commands) -> None:
    parser = add_command(commands, "resume", resume, "tag runs", usage="overnight resume TAG [OPTIONS]")
    # no --budget: values measured under two budgets cannot be compared
    add_settings(parser, leave_out=("tag", "runs", "config", "budget"))


def resume(tag: str, runs: str, **changes: Any) -> int:
    """Continue a run after any interruption."""
    from agent.rundir.detach import detach
    from agent.session import setup

    directory = existing(runs, tag)
    if changes.pop("detach", False):
        return detach(tag, runs)
    setup.resume(Path(runs), tag, changes, live_view(), say)
    status = finish(directory)
    state, _ = load(directory)
    done = len(state.finished)
    if state.resumed_at == len(state.records) == done >= (state.session.trials or done + 1):
        say(f"no trial was left to run. For more: overnight resume {tag} --trials {done + 1}")
    return status
