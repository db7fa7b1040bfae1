"""The commands that show a session: ``overnight list``, ``status``, ``log``, ``show`` and ``diff``."""

from __future__ import annotations

import time

from agent.cli.output import say, show
from agent.cli.runs import branch_waits, existing, folder_of_runs, load, repo_of
from agent.errors import UsageError
from agent.observers.heartbeat import read_heartbeat
from agent.review.data.attempt import Details, details_of, show_json
from agent.review.data.attempts import log_json, select
from agent.review.data.night import Night, night_of
from agent.review.data.pair import Pair, diff_json, pair_of
from agent.review.data.runs import overview
from agent.review.data.status import status_json
from agent.review.terminal.diff import compare_view
from agent.review.terminal.log import log_table
from agent.review.terminal.runs import runs_table
from agent.review.terminal.show import show_view
from agent.review.terminal.status import status_panel
from agent.rundir.directory import RunDirectory, find_replays


def list_runs(json: bool, runs: str) -> None:
    folder = folder_of_runs(runs)
    show(json, overview(folder, say), list, runs_table)
    if others := find_replays(folder):
        say(f"Replays and promotions: {', '.join(others)}. `overnight watch NAME` shows one.")


def status(tag: str | None, json: bool, runs: str) -> None:
    show(json, night_now(existing(runs, tag)), status_json, status_panel)


def night_now(directory: RunDirectory) -> Night:
    """The data of a session at this moment, with what it does now."""
    state, settings = load(directory)
    last_sign = max(state.last_time, read_heartbeat(directory.progress).time)
    waits = branch_waits(directory.tag, state, settings)
    return night_of(state, settings, time.time(), directory.running(), last_sign, branch_waits=waits)


def log(tag: str | None, all: bool, status: str, source: str, text: str, json: bool, runs: str) -> None:
    night = night_of(*load(existing(runs, tag)))
    filters = {"status": status, "source": source, "words": text}
    show(json, night, lambda n: log_json(select(n.attempts, **filters)), lambda n: log_table(n, all=all, **filters))


def show_attempt(tag: str | None, number: int, json: bool, runs: str) -> None:
    show(json, details(existing(runs, tag), number), show_json, show_view)


def details(directory: RunDirectory, number: int) -> Details:
    """Everything about one trial. Raises ``UsageError`` if the session has no such trial."""
    state, _ = load(directory)
    record = state.of_trial(number)
    if record is None:
        valid = f"it has 1 to {len(state.records)}" if state.records else "it has none yet"
        raise UsageError(f"session {directory.tag} has no trial {number}: {valid}.")
    return details_of(record, state, directory.path)


def diff(tag: str, a: str, b: str, json: bool, runs: str, target: str | None) -> None:
    show(json, pair(existing(runs, tag), a, b, target), diff_json, compare_view)


def pair(directory: RunDirectory, a: str, b: str, target: str | None) -> Pair:
    """Two trials side by side; ``target`` replaces the recorded folder of the target."""
    state, settings = load(directory)
    return pair_of(state, repo_of(settings, target), a, b)
