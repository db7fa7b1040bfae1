"""``overnight report``."""

from __future__ import annotations

from agent.cli.output import say
from agent.cli.runs import existing, is_replay
from agent.errors import UsageError
from agent.replay.recorded import read_recorded
from agent.replay.shown import page
from agent.review.report.html import write_page
from agent.review.report.report import write_report


def report(tag: str | None, runs: str) -> None:
    directory = existing(runs, tag, replays=tag is not None)
    if not is_replay(directory):
        print(write_report(directory.path))
        return
    found = read_recorded(directory)
    for problem in found.damage:
        say(problem)
    if found.shown is None:
        raise UsageError(f"{directory.path} has no plan yet. Repeat its `overnight {found.kind or 'replay'}`.")
    place = directory.path / f"{found.kind}.html"
    write_page(place, page(found.shown))
    print(place)
