"""New repositories, and folders that are not a target yet."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from agent.repo.git import GitRefused, output_of
from agent.repo.repo import AUTHOR

LARGEST = 20 << 20  # bytes of a file that is copied; larger files are data
JUNK = {"__pycache__", ".git", ".venv", "venv", "node_modules", ".ipynb_checkpoints", ".mypy_cache", ".pytest_cache"}


def make_repository(directory: Path, message: str) -> None:
    """Make ``directory`` a git repository with one commit of everything in it.

    Raises:
        EnvironmentProblem: git is missing or fails.
    """
    parts = zip(("NAME", "EMAIL"), AUTHOR, strict=True)
    who = {f"GIT_{role}_{part}": value for part, value in parts for role in ("AUTHOR", "COMMITTER")}
    for words in (["init", "-b", "main"], ["add", "-A", "-f"], ["commit", "--no-gpg-sign", "-m", message]):
        output_of(directory, *words, env=who)


def files_of(folder: Path) -> list[str] | None:
    """Files that git tracks or would track, submodules included; None if git knows nothing of the folder.

    Raises:
        EnvironmentProblem: git refuses for another reason than a missing repository, such as its owner; quotes git.
    """
    try:
        inside = output_of(folder, "rev-parse", "--is-inside-work-tree")
    except GitRefused as error:
        if "not a git repository" not in str(error):
            raise
        return None
    if inside.strip() != b"true" or _attempt(folder, "check-ignore", str(folder.resolve())):
        return None
    return _listed(folder, "--cached", "--recurse-submodules") + _listed(folder, "--others", "--exclude-standard")


def copy_files(folder: Path, names: list[str] | None, directory: Path) -> list[str]:
    """Copy files of a folder, or all but caches if ``names`` is None; returns those that are too large to copy."""
    if names is None:
        paths = sorted(path.relative_to(folder) for path in folder.rglob("*"))
        names = [str(path) for path in paths if not JUNK.intersection(path.parts)]
    inside, large = directory.resolve(), []
    for name in names:
        source = folder / name
        if not source.is_file() or source.resolve().is_relative_to(inside):
            continue
        if source.stat().st_size > LARGEST:
            large.append(name)
            continue
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, directory / name)
    return large


def ignored_of(folder: Path) -> list[str]:
    """Files that git ignores; [] outside of a repository."""
    return _listed(folder, "--others", "--ignored", "--exclude-standard")


def _listed(folder: Path, *words: str) -> list[str]:
    return list(filter(None, _attempt(folder, "ls-files", "-z", *words).split("\0")))


def _attempt(folder: Path, *words: str) -> str:
    """The output of a git command; "" if git refuses."""
    try:
        return os.fsdecode(output_of(folder, *words))
    except GitRefused:
        return ""
