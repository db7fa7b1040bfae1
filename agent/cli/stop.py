"""``overnight stop``."""

from __future__ import annotations

from agent.cli.output import say
from agent.cli.runs import existing, is_replay
from agent.errors import UsageError
from agent.rundir.directory import RunDirectory


def stop(tag: str, now: bool, runs: str) -> None:
    say(ask_to_stop(existing(runs, tag, replays=True), now))


def ask_to_stop(directory: RunDirectory, now: bool) -> str:
    """Ask a session to end. Returns what it will do. Raises ``UsageError`` if it is not running."""
    tag = directory.tag
    if not directory.running():
        more = "The command that started it" if is_replay(directory) else f"`{directory.command('resume')}`"
        raise UsageError(f"session {tag} is not running. {more} continues it.")
    directory.ask_to_stop(now)
    return f"session {tag} ends {'at once' if now else 'after its running trial'}"
