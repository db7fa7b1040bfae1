"""``overnight run`` and ``resume``: start and continue a session."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from shlex import quote
from typing import Any

from agent.cli.output import live_view, say
from agent.cli.runs import existing, load, repo_of
from agent.ledger.state import State
from agent.review.data.runs import row
from agent.rundir.detach import detach, detached
from agent.rundir.directory import RunDirectory
from agent.session import setup
from agent.session.preview import preview
from agent.session.stopping import AT_ONCE
from agent.settings import Settings, make_settings
from agent.target import load_target


def run(config: Path | None, dry_run: bool, **flags: Any) -> int:
    target_run = load_target(Path(flags.get("target", Settings.target)))[1]
    settings = make_settings(flags, config, target_run)
    if dry_run:
        for name, words in preview(settings, say):
            print(f"{name:<9} {words}")
        return 0
    if settings.detach and not detached():
        return detach(settings.tag, settings.runs)
    return finish(setup.start(settings, live_view(), say))


def resume(tag: str, runs: str, **changes: Any) -> int:
    directory = existing(runs, tag)
    if changes.pop("detach", False):
        return detach(tag, runs)
    state, settings = load(directory)
    if nothing := _nothing_left(directory, state, settings, changes):
        say(nothing)
        return 0
    setup.resume(Path(runs), tag, changes, live_view(), say)
    return finish(directory)


def _nothing_left(
    directory: RunDirectory, state: State, settings: Mapping[str, Any], changes: Mapping[str, Any]
) -> str:
    """Why a resume would do nothing; "" if it would do anything. It needs neither sandbox nor model server."""
    planned, done = changes.get("trials", state.session.trials), len(state.finished)
    if not changes.keys() <= {"trials"} or state.ended is None or state.open or planned is None or done < planned:
        return ""
    if repo_of(settings, None).refs.get(f"refs/heads/autoresearch/{directory.tag}") != state.head:
        return ""  # the branch waits
    return f"no trial is left to run ({done} done). For more: {_more(directory, done)}"


def _more(directory: RunDirectory, done: int) -> str:
    return directory.command("resume", "--trials", str(done + 10))


def finish(directory: RunDirectory) -> int:
    """Print the result of a session that ended and the next commands. Returns 130 if it was stopped at once, else 0."""
    row(directory, say)  # the cached row makes the next `overnight list` fast
    state, settings = load(directory)
    tag = directory.tag
    say(f"session {tag}: {state.ended}; {len(state.kept)} of {len(state.finished)} edits kept.")
    branch = f"git -C {quote(str(settings['run']['target']))} log autoresearch/{tag}"
    done = len(state.finished)
    resume = _more(directory, done) if state.session.trials in range(done + 1) else directory.command("resume")
    say(" · ".join([resume, directory.command("log"), directory.command("report"), branch]))
    return 130 if state.ended == AT_ONCE else 0
