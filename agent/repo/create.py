"""New repositories, and folders that are not a target yet."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from agent.errors import EnvironmentProblem

LARGEST = 20 << 20  # bytes of a file that is copied; larger files are data
JUNK = {"__pycache__", ".git", ".venv", "venv", "node_modules", ".ipynb_checkpoints", ".mypy_cache", ".pytest_cache"}


def make_repository(directory: Path, message: str) -> None:
    """Make ``directory`` a git repository with one commit of everything in it.

    Raises:
        EnvironmentProblem: git is missing or fails.
    """
    identity = ["-c", "user.name=Overnight", "-c", "user.email=overnight@localhost", "-c", "commit.gpgSign=false"]
    for words in (["init", "-q", "-b", "main"], ["add", "-A", "-f"], [*identity, "commit", "-q", "-m", message]):
        done = _git(directory, "-c", "core.hooksPath=/dev/null", *words)
        if done.returncode:
            raise EnvironmentProblem(f"git {words[0]} failed in {directory}: {done.stderr.strip()}")


def files_of(folder: Path) -> list[str] | None:
    """Files that git tracks or would track, submodules included; None if git knows nothing of the folder.

    Raises:
        EnvironmentProblem: git refuses for another reason than a missing repository, such as its owner; quotes git.
    """
    inside = _git(folder, "rev-parse", "--is-inside-work-tree")
    if inside.returncode and "not a git repository" not in inside.stderr:
        raise EnvironmentProblem(f"git rev-parse failed in {folder}: {inside.stderr.strip().splitlines()[0]}")
    if inside.stdout.strip() != "true" or _git(folder, "check-ignore", str(folder.resolve())).stdout:
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
    return list(filter(None, _git(folder, "ls-files", "-z", *words).stdout.split("\0")))


def _git(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    english = {**os.environ, "LC_ALL": "C", "LANGUAGE": "C"}  # `files_of` reads git's message
    try:
        command = ["git", "-C", str(folder), *words]
        return subprocess.run(command, capture_output=True, text=True, errors="surrogateescape", env=english)
    except OSError:
        raise EnvironmentProblem("git is not installed.") from None
