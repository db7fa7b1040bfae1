"""Finding and loading run directories, shared by the commands."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agent.cli.output import say
from agent.errors import OvernightError, UsageError, similar
from agent.ledger.recovery import read_state
from agent.ledger.state import State
from agent.repo.git import scrub_environment
from agent.repo.repo import Repo
from agent.repo.run_refs import RunRefs
from agent.rundir.directory import RunDirectory, find_replays, find_runs
from agent.settings import Settings


def folder_of_runs(runs: str) -> Path:
    """The folder that ``--runs`` names. Raises ``UsageError`` if it is missing and not the default."""
    folder = Path(runs)
    if folder.is_dir() or (runs == Settings.runs and not folder.exists()):
        return folder
    raise UsageError(f"--runs {runs}: no such folder. Name the folder that `overnight run` wrote to.")


def existing(runs: str, tag: str | None, replays: bool = False) -> RunDirectory:
    """The session with this tag; the newest session if ``tag`` is None.

    Args:
        replays: also find replays and promotions; without a tag, one that is running comes before the newest session.
    """
    folder = folder_of_runs(runs)
    known = find_runs(folder)
    others = find_replays(folder) if replays else []
    if tag is None:
        running = (name for name in others if RunDirectory(folder, name).running())
        tag = next(running, known[-1] if known else None)
    if tag is None:
        raise UsageError(f"there are no sessions in {runs}. `overnight demo` makes one.")
    if tag not in (*known, *others):
        if (other := folder / tag).is_dir() and tag in find_replays(folder):
            raise UsageError(f"{other} is a replay or promotion, not a session. `overnight watch {tag}` shows it.")
        if (other / "compare.toml").is_file():
            raise UsageError(f"{other} is a comparison, not a session. `overnight list` shows its sessions.")
        raise UsageError(f"no session {tag!r} in {runs}.{similar(tag, [*known, *others])} See `overnight list`.")
    return RunDirectory(folder, tag)


def is_replay(directory: RunDirectory) -> bool:
    """Whether this is the folder of a replay or promotion, not of a session."""
    return not directory.settings.exists()


def load(directory: RunDirectory) -> tuple[State, dict[str, Any]]:
    """State and current settings of a session. Prints the damaged lines of its ledger and reads the rest."""
    state, damage = read_state(directory.ledger)
    for problem in damage:
        say(problem)
    return state, directory.read_settings(state)


def branch_waits(tag: str, state: State, settings: Mapping[str, Any]) -> str:
    """Why the branch of a run does not follow its head; "" if it does, or if the target cannot be read."""
    try:
        return RunRefs(repo_of(settings, None), tag).waits(state.head, state.on_branch) if state.moved else ""
    except OvernightError:
        return ""


def repo_of(settings: Mapping[str, Any], target: str | None) -> Repo:
    """The repository of a session's target; ``target`` (option ``--target``) replaces the recorded folder."""
    scrub_environment()
    folder = Path(target or str(settings["run"]["target"]))
    if not folder.is_dir():
        raise UsageError(f"the target {folder} of this session does not exist. Name its folder with --target.")
    return Repo(folder)
