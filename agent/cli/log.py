"""``overnight log``."""

from __future__ import annotations

from agent.cli.options import Commands, add_command
from agent.cli.output import show
from agent.cli.runs import existing, load


def add(commands: Commands) -> None:
    parser = add_command(commands, "log", log, "newest json runs -cache")
    parser.add_argument("--all", action="store_true", help="list every attempt; implied by the filters below")
    parser.add_argument("--status", default="", help="attempts with this status or decision: ok, revert, oom, …")
    parser.add_argument("--source", default="", help="attempts from this source: llm, cma, tpe, …")
    parser.add_argument("--text", default="", help="attempts with this text in subject, reason or changed lines")


def log(tag: str | None, all: bool, status: str, source: str, text: str, json: bool, runs: str) -> int:
    """List the accepted edits of a run."""
    from agent.review.data.attempts import log_json, select
    from agent.review.data.night import night_of
    from agent.review.terminal.log import log_table

    night = night_of(*load(existing(runs, tag)))
    filters = {"status": status, "source": source, "words": text}
    return show(json, lambda: log_json(select(night.attempts, **filters)), lambda: log_table(night, all=all, **filters))
