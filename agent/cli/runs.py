"""Finding and loading run directories, shared by the commands."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.cli.output import say
from agent.errors import UsageError

if TYPE_CHECKING:
    from agent.ledger.state import State
    from agent.repo.repo import Repo
    from agent.rundir.directory import RunDirectory


def folder_of_runs(runs: str) -> Path:
    """The folder that ``--runs`` names. Raises ``UsageError`` if it is missing and not the default."""
    from agent.settings import Settings

    folder = Path(runs)
    if folder.is_dir() or (runs == Settings.runs and not folder.exists()):
        return folder
    raise UsageError(f"--runs {runs}: no such folder. Name the folder that `overnight run` wrote to.")


def existing(runs: str, tag: str | None) -> RunDirectory:
    """The run with this tag; the newest run if ``tag`` is None."""
    import difflib

    from agent.rundir.directory import RunDirectory, find_runs

    known = find_runs(folder_of_runs(runs))
    if tag is None and not known:
        raise UsageError(f"there are no runs in {runs}. `overnight demo` makes one.")
    tag = tag or known[-1]
    if tag not in known:
        close = difflib.get_close_matches(tag, known, n=3, cutoff=0.3) or known[-3:]
        raise UsageError(f"no run {tag!r} in {runs}." + (f" Nearest: {', '.join(close)}." if close else ""))
    return RunDirectory(Path(runs), tag)


def load(directory: RunDirectory) -> tuple[State, dict[str, Any]]:
    """State and current settings of a run. Prints the damaged lines of its ledger and reads the rest."""
    from agent.ledger.recovery import read_state

    state, damage = read_state(directory.ledger)
    for problem in damage:
        say(problem)
    return state, directory.read_settings(state)


def repo_of(settings: Mapping[str, Any], target: str | None) -> Repo:
    """The repository of a run's target; ``target`` (option ``--target``) replaces the recorded folder."""
    from agent.repo.repo import Repo, scrub_environment

    scrub_environment()
    folder = Path(target or str(settings["run"]["target"]))
    if not folder.is_dir():
        raise UsageError(f"the target {folder} of this run does not exist. Name its folder with --target.")
    return Repo(folder)
