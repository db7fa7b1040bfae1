"""``overnight report``."""

from __future__ import annotations

from agent.cli.options import Commands, add_command
from agent.cli.runs import existing


def add(commands: Commands) -> None:
    add_command(commands, "report", report, "newest runs -cache")


def report(tag: str | None, runs: str) -> int:
    """Write report.html and progress.png of a run."""
    from agent.review.report.report import write_report

    print(write_report(existing(runs, tag).path))
    return 0
