"""Runs git commands in a repository, with nothing of its configuration that could run a program."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agent.errors import EnvironmentProblem, UsageError

LOCK_SECONDS = 3.0  # wait for a lock that another git process holds
_SAFE = (  # override the configuration of the repository
    "core.hooksPath=/dev/null", "core.fsmonitor=false", "gc.auto=0", "maintenance.auto=false", "core.pager=cat",
    "diff.external=", "protocol.allow=never", "i18n.logOutputEncoding=UTF-8",
)  # fmt: skip


class GitRefused(EnvironmentProblem):
    """A git command failed. The message quotes git."""


class Git:
    """The git command in the repository of a folder. Hooks never run.

    Raises:
        UsageError: the folder is not in a repository, or the repository is bare.
        EnvironmentProblem: git is not installed.
    """

    def __init__(self, folder: Path):
        self.top = folder.resolve()
        try:
            self.top = Path(self.run("rev-parse", "--show-toplevel")).resolve()
        except GitRefused as error:
            if "must be run in a work tree" in str(error):
                raise UsageError(f"{folder} is a bare repository. Clone it and name the folder of the clone.") from None
            if "not a git repository" not in str(error) and folder.is_dir():
                raise UsageError(str(error)) from None
            raise UsageError(
                f"{folder} is not in a git repository. Make one (git init, git add, git commit), "
                f"or start with `overnight init DIR`."
            ) from None

    def run(self, *words: str, data: bytes = b"", env: Mapping[str, str] | None = None) -> str:
        """The output of a git command as text, without its last line feed. Arguments and errors: see ``output_of``."""
        return os.fsdecode(output_of(self.top, *words, data=data, env=env)).removesuffix("\n")

    def attempt(self, *words: str) -> str | None:
        """The output of a git command; None if it is empty or the command fails."""
        try:
            return self.run(*words) or None
        except EnvironmentProblem:
            return None


def output_of(folder: Path, *words: str, data: bytes = b"", env: Mapping[str, str] | None = None) -> bytes:
    """The output of a git command in a folder, which may be in no repository.

    Args:
        data: input of the command.
        env: added to the environment. Messages of git are in English.

    Raises:
        GitRefused: the command fails.
        EnvironmentProblem: git is missing.
    """
    try:
        import git
    except ImportError as error:  # GitPython looks for the program when it is imported
        raise EnvironmentProblem(f"git does not run: {str(error).splitlines()[0]} Install git.") from None
    wait = round(LOCK_SECONDS * 1000)
    settings = (*_SAFE, f"core.filesRefLockTimeout={wait}", f"core.packedRefsTimeout={wait}")
    flags = [flag for setting in settings for flag in ("-c", setting)]
    # -C, because GitPython expands a $ in the path of its working directory
    command = ["git", "-C", str(folder.resolve()), "--no-optional-locks", *flags, *words]
    unchanged = {"stdout_as_string": False, "strip_newline_in_stdout": False}
    # an own process group: Ctrl-C in a terminal would end git before the session can decide
    options: dict[str, Any] = {**unchanged, "env": env, "start_new_session": True}
    try:
        with tempfile.TemporaryFile() as stdin:
            stdin.write(data)
            stdin.seek(0)
            return bytes(git.Git(os.sep).execute(command, istream=stdin, **options))
    except git.GitCommandNotFound:
        raise EnvironmentProblem("git is not installed, or not on PATH.") from None
    except git.GitCommandError as error:
        raise GitRefused(f"git {words[0]} failed in {folder}: {_complaint(error.stderr)}.") from None


def _complaint(text: str | None) -> str:
    """The decisive line of git's stderr, without its full stop."""
    plain = (text or "").strip().removeprefix("stderr: '").removesuffix("'")  # GitPython puts it in quotes
    lines = [line.strip(". ") for line in plain.splitlines() if line.strip()]
    return next((line for line in lines if "fatal: " in line or "error: " in line), lines[0] if lines else "no message")


def scrub_environment() -> None:
    """Remove git variables of the caller (a hook, a rebase), which would redirect git to another repository."""
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_NAMESPACE"):
        os.environ.pop(name, None)
