"""Finding and loading run directories, shared by the commands."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.cli.output import say
from agent.errors import UsageError
from agent.ledger.state import State
from agent.rundir.directory import RunDirectory, find_runs
from agent.settings import Settings

if TYPE_CHECKING:
    from agent.repo.repo import Repo


def last_sign(directory: RunDirectory, state: State) -> float:
    """When the session last wrote anything, in seconds since the epoch."""
    from agent.observers.heartbeat import read_heartbeat

    return max(state.last_time, read_heartbeat(directory.progress)[0])


def existing(runs: str, tag: str | None) -> RunDirectory:
    """The run with this tag; the newest one without."""
    import difflib

    known = find_runs(folder_of_runs(runs))
    if tag is None:
        if not known:
            raise UsageError(f"there are no runs in {runs}. `overnight demo` makes one.")
        tag = known[-1]
    if tag not in known:
        close = difflib.get_close_matches(tag, known, n=3, cutoff=0.3) or known[-3:]
        raise UsageError(f"no run {tag!r} in {runs}." + (f" Nearest: {', '.join(close)}." if close else ""))
    return RunDirectory(Path(runs), tag)


def load(directory: RunDirectory) -> tuple[State, dict[str, Any]]:
    """The state of a run, and its settings by now. Of a damaged ledger, what can be read; the damage is said."""
    from agent.ledger.recovery import read_state

    state, damage = read_state(directory.ledger)
    for problem in damage:
        say(problem)
    return state, directory.read_settings(state)


def repo_of(settings: Mapping[str, Any], target: str | None) -> Repo:
    """The repository of a run's target, or of the folder that the user names instead."""
    from agent.repo.repo import Repo, scrub_environment

    scrub_environment()
    folder = Path(target or str(settings["run"]["target"]))
    if not folder.is_dir():
        raise UsageError(f"the target of this run, {folder}, is not there any more. Name its folder with --target.")
    return Repo(folder)


def folder_of_runs(runs: str) -> Path:
    """The folder that ``--runs`` names. Raises ``UsageError`` for one that is not there, but for the usual one: that
    appears with the first run."""
    folder = Path(runs)
    if folder.is_dir() or (runs == Settings().runs and not folder.exists()):
        return folder
    raise UsageError(f"--runs {runs}: no such folder. Name the one in which `overnight run` put its runs.")
