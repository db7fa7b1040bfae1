"""What each command does: read its arguments, call the part that does the work, print."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

from agent.cli.output import say, show
from agent.cli.runs import existing, folder_of_runs, last_sign, load, repo_of
from agent.errors import EnvironmentProblem, UsageError
from agent.rundir.directory import RunDirectory

if TYPE_CHECKING:
    pass


def list_(json: bool, runs: str, cache: str) -> int:
    from agent.review.data.run_index import overview
    from agent.review.terminal.runs import runs_table

    rows = overview(folder_of_runs(runs), say)
    return show(json, lambda: rows, lambda: runs_table(rows))


def status_(tag: str | None, json: bool, runs: str, cache: str) -> int:
    from agent.review.data.night import night_of
    from agent.review.data.status import status_json
    from agent.review.terminal.status import status_panel

    directory = existing(runs, tag)
    state, settings = load(directory)
    now, running = time.time(), directory.running()
    night = night_of(state, settings, now, running, last_sign(directory, state))
    return show(json, lambda: status_json(night), lambda: status_panel(night))


def log_(tag: str | None, all: bool, status: str, source: str, text: str, json: bool, runs: str, cache: str) -> int:
    from agent.review.data.attempts import log_json, select
    from agent.review.data.night import night_of
    from agent.review.terminal.log import log_table

    night = night_of(*load(existing(runs, tag)))
    filters = {"status": status, "source": source, "words": text}
    return show(json, lambda: log_json(select(night.attempts, **filters)), lambda: log_table(night, all=all, **filters))


def show_(tag: str | None, number: int, json: bool, runs: str, cache: str) -> int:
    from agent.review.data.attempt import details_of, show_json
    from agent.review.terminal.show import show_view

    directory = existing(runs, tag)
    state, _ = load(directory)
    record = state.of_trial(number)
    if record is None:
        there_are = f"it has 1 to {len(state.records)}" if state.records else "nothing has been tried yet"
        raise UsageError(f"run {directory.tag} has no trial {number}: {there_are}.")
    details = details_of(record, state, directory.path)
    return show(json, lambda: show_json(details), lambda: show_view(details))


def report_(tag: str | None, runs: str, cache: str) -> int:
    print(write_report(existing(runs, tag)))
    return 0


def branch(tag: str, squash: bool, pick: list[int] | None, onto: str, name: str, runs: str, target: str | None) -> int:
    from agent.repo.clean_branch import make_branch
    from agent.text import count

    directory = existing(runs, tag)
    state, settings = load(directory)
    repo = repo_of(settings, target)
    made = make_branch(state, repo, directory.tag, name=name, squash=squash, pick=pick or (), onto=onto)
    print(made.name)
    made_of = f"{count(made.edits, 'edit')} in {count(made.commits, 'commit')}"
    say(f"{made_of}: git -C {quote(str(repo.top))} log {made.base[:10]}..{made.name}")
    return 0


def diff(tag: str, a: str, b: str, json: bool, runs: str, target: str | None) -> int:
    from agent.review.data.pair import diff_json, pair_of
    from agent.review.terminal.diff import compare_view

    state, settings = load(existing(runs, tag))
    pair = pair_of(state, repo_of(settings, target), a, b)
    return show(json, lambda: diff_json(pair), lambda: compare_view(pair))


def export(tag: str | None, format: str, output: Path | None, runs: str) -> int:
    from agent.review.data.export import export as text_of
    from agent.text import count

    state, _ = load(existing(runs, tag))
    text = text_of(state, format)
    if output is None:
        sys.stdout.write(text)
        return 0
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise EnvironmentProblem(f"cannot write {output}: {error.strerror}.") from error
    say(f"{output}: {count(len(state.finished), 'attempt')} as {format}")
    return 0


def write_report(directory: RunDirectory) -> Path:
    from agent.review.report.report import write_report as write

    return write(directory.path)
