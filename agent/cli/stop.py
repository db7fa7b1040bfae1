"""``overnight stop``."""

from __future__ import annotations

from agent.cli.options import Commands, add_command
from agent.cli.output import say
from agent.cli.runs import existing
from agent.errors import UsageError


def add(commands: Commands) -> None:
    parser = add_command(commands, "stop", stop, "tag runs -cache")
    parser.add_argument("--now", action="store_true", help="end at once; the next resume repeats the running trial")


def stop(tag: str, now: bool, runs: str) -> int:
    """End a session after its running trial."""
    directory = existing(runs, tag)
    if not directory.running():
        raise UsageError(f"run {tag} is not running. `overnight resume {tag}` continues it.")
    directory.ask_to_stop(now)
    say(f"run {tag} ends {'at once' if now else 'after its running trial'}")
    return 0
