"""The commands that show sessions: ``list``, ``status``, ``log``, ``show``, ``diff`` and ``report``."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from agent.cli.options import Commands, add_command
from agent.cli.output import say, show
from agent.cli.runs import branch_waits, existing, folder_of_runs, is_replay, load, repo_of
from agent.errors import UsageError

if TYPE_CHECKING:
    from agent.review.data.attempt import Details
    from agent.review.data.night import Night
    from agent.review.data.pair import Pair
    from agent.rundir.directory import RunDirectory


def add(commands: Commands) -> None:
    add_command(commands, "list", list_runs, "json runs -cache")
    add_command(commands, "status", status, "newest json runs -cache")
    parser = add_command(commands, "log", log, "newest json runs -cache")
    parser.add_argument("--all", action="store_true", help="list every trial; implied by the filters below")
    parser.add_argument("--status", default="", help="trials with this status or decision: ok, revert, oom, …")
    parser.add_argument("--source", default="", help="trials from this source: llm, cma, tpe, …")
    parser.add_argument("--text", default="", help="trials with this text in subject, reason or changed lines")
    parser = add_command(commands, "show", show_attempt, "newest json runs -cache")
    parser.add_argument("number", type=int, metavar="N", help="number of the trial")
    parser = add_command(commands, "diff", diff, "tag json moved runs")
    for name in "ab":
        parser.add_argument(name, metavar=name.upper(), help="number of a trial, baseline, or head")
    add_command(commands, "report", report, "newest runs -cache")


def list_runs(json: bool, runs: str) -> int:
    """List the sessions."""
    from agent.review.data.runs import overview
    from agent.review.terminal.runs import runs_table
    from agent.rundir.directory import find_replays

    folder = folder_of_runs(runs)
    rows = overview(folder, say)
    show(json, lambda: rows, lambda: runs_table(rows))
    if others := find_replays(folder):
        say(f"Replays and promotions: {', '.join(others)}. `overnight watch NAME` shows one.")
    return 0


def status(tag: str | None, json: bool, runs: str) -> int:
    """Show one session at a glance."""
    from agent.review.data.status import status_json
    from agent.review.terminal.status import status_panel

    night = night_now(existing(runs, tag))
    return show(json, lambda: status_json(night), lambda: status_panel(night))


def night_now(directory: RunDirectory) -> Night:
    """The data of a session at this moment, with what it does now."""
    from agent.observers.heartbeat import read_heartbeat
    from agent.review.data.night import night_of

    state, settings = load(directory)
    last_sign = max(state.last_time, read_heartbeat(directory.progress).time)
    waits = branch_waits(directory.tag, state, settings)
    return night_of(state, settings, time.time(), directory.running(), last_sign, branch_waits=waits)


def log(tag: str | None, all: bool, status: str, source: str, text: str, json: bool, runs: str) -> int:
    """List the kept edits of a session."""
    from agent.review.data.attempts import log_json, select
    from agent.review.data.night import night_of
    from agent.review.terminal.log import log_table

    night = night_of(*load(existing(runs, tag)))
    filters = {"status": status, "source": source, "words": text}
    return show(json, lambda: log_json(select(night.attempts, **filters)), lambda: log_table(night, all=all, **filters))


def show_attempt(tag: str | None, number: int, json: bool, runs: str) -> int:
    """Show one trial: diff, reason, loss curve, failure."""
    from agent.review.data.attempt import show_json
    from agent.review.terminal.show import show_view

    found = details(existing(runs, tag), number)
    return show(json, lambda: show_json(found), lambda: show_view(found))


def details(directory: RunDirectory, number: int) -> Details:
    """Everything about one trial. Raises ``UsageError`` if the session has no such trial."""
    from agent.review.data.attempt import details_of

    state, _ = load(directory)
    record = state.of_trial(number)
    if record is None:
        valid = f"it has 1 to {len(state.records)}" if state.records else "it has none yet"
        raise UsageError(f"session {directory.tag} has no trial {number}: {valid}.")
    return details_of(record, state, directory.path)


def diff(tag: str, a: str, b: str, json: bool, runs: str, target: str | None) -> int:
    """Compare two trials of a session: values and changed lines."""
    from agent.review.data.pair import diff_json
    from agent.review.terminal.diff import compare_view

    found = pair(existing(runs, tag), a, b, target)
    return show(json, lambda: diff_json(found), lambda: compare_view(found))


def pair(directory: RunDirectory, a: str, b: str, target: str | None) -> Pair:
    """Two trials side by side; ``target`` replaces the recorded folder of the target."""
    from agent.review.data.pair import pair_of

    state, settings = load(directory)
    return pair_of(state, repo_of(settings, target), a, b)


def report(tag: str | None, runs: str) -> int:
    """Write report.html and progress.png of a session, or the page of a replay or promotion."""
    from agent.replay.recorded import read_recorded
    from agent.replay.shown import write
    from agent.review.report.report import write_report

    directory = existing(runs, tag, replays=tag is not None)
    if not is_replay(directory):
        print(write_report(directory.path))
        return 0
    found = read_recorded(directory)
    for problem in found.damage:
        say(problem)
    if found.shown is None:
        raise UsageError(f"{directory.path} has no plan yet. Repeat its `overnight {found.kind or 'replay'}`.")
    place = directory.path / f"{found.kind}.html"
    write(found.shown, place)
    print(place)
    return 0
