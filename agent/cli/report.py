"""``overnight report``."""

from __future__ import annotations

from agent.cli.options import Commands, add_command
from agent.cli.output import say
from agent.cli.runs import existing, is_replay
from agent.errors import UsageError


def add(commands: Commands) -> None:
    add_command(commands, "report", report, "newest runs -cache")


def report(tag: str | None, runs: str) -> int:
    """Write report.html and progress.png of a run, or the page of a replay or promotion."""
    from agent.review.report.report import write_report

    directory = existing(runs, tag, replays=tag is not None)
    if not is_replay(directory):
        print(write_report(directory.path))
        return 0
    from agent.replay.recorded import read_recorded
    from agent.replay.shown import write

    found = read_recorded(directory)
    for problem in found.damage:
        say(problem)
    if found.shown is None:
        raise UsageError(f"{directory.path} has no plan yet. Repeat its `overnight {found.kind or 'replay'}`.")
    place = directory.path / f"{found.kind}.html"
    write(found.shown, place)
    print(place)
    return 0
