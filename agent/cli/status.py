"""``overnight status``."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from agent.cli.options import Commands, add_command
from agent.cli.output import show
from agent.cli.runs import existing, load

if TYPE_CHECKING:
    from agent.review.data.night import Night
    from agent.rundir.directory import RunDirectory


def add(commands: Commands) -> None:
    add_command(commands, "status", status, "newest json runs -cache")


def status(tag: str | None, json: bool, runs: str) -> int:
    """Show one run at a glance."""
    from agent.review.data.status import status_json
    from agent.review.terminal.status import status_panel

    night = night_now(existing(runs, tag))
    return show(json, lambda: status_json(night), lambda: status_panel(night))


def night_now(directory: RunDirectory) -> Night:
    """The data of a run at this moment, with what its session does."""
    from agent.observers.heartbeat import read_heartbeat
    from agent.review.data.night import night_of

    state, settings = load(directory)
    last_sign = max(state.last_time, read_heartbeat(directory.progress)[0])
    return night_of(state, settings, time.time(), directory.running(), last_sign)
