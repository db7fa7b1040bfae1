"""Runs git commands in a repository, with nothing of its configuration that could run a program."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.errors import EnvironmentProblem, UsageError

if TYPE_CHECKING:
    import git

LOCK_SECONDS = 3.0  # wait for a lock that another git process holds
_SAFE = (
    "core.hooksPath=/dev/null", "core.fsmonitor=false", "gc.auto=0", "maintenance.auto=false", "core.pager=cat",
    "diff.external=", "protocol.allow=never", "i18n.logOutputEncoding=UTF-8",
)  # fmt: skip


class Git:
    """The git command in the repository of a folder. Hooks never run.

    Raises:
        UsageError: the folder is not in a repository, or the repository is bare.
        EnvironmentProblem: git is not installed.
    """

    def __init__(self, folder: Path):
        self._repo = _open(folder)
        if self._repo.bare or self._repo.working_tree_dir is None:
            raise UsageError(f"{folder} is a bare repository. Clone it and name the folder of the clone.")
        self.top = Path(self._repo.working_tree_dir).resolve()

    def close(self) -> None:
        self._repo.close()

    def run(self, *words: str, data: bytes = b"", env: Mapping[str, str] | None = None) -> str:
        """The output of a git command as text, without its last line feed. Arguments and errors: see ``output``."""
        return os.fsdecode(self.output(*words, data=data, env=env)).removesuffix("\n")

    def output(self, *words: str, data: bytes = b"", env: Mapping[str, str] | None = None) -> bytes:
        """The output of a git command, unchanged.

        Args:
            data: input of the command.
            env: added to the environment.

        Raises:
            EnvironmentProblem: git is missing, or the command fails; quotes git.
        """
        import git

        flags = [flag for setting in _settings() for flag in ("-c", setting)]
        # -C, because GitPython expands a $ in the path of its working directory
        command = ["git", "-C", str(self.top), "--no-optional-locks", *flags, *words]
        options: dict[str, Any] = {"stdout_as_string": False, "strip_newline_in_stdout": False, "env": env}
        try:
            with tempfile.TemporaryFile() as stdin:
                stdin.write(data)
                stdin.seek(0)
                return bytes(self._repo.git.execute(command, istream=stdin, **options))
        except git.GitCommandNotFound:
            raise EnvironmentProblem("git is not installed, or not on PATH.") from None
        except git.GitCommandError as error:
            raise EnvironmentProblem(f"git {words[0]} failed in {self.top}: {_complaint(error.stderr)}.") from None

    def attempt(self, *words: str) -> str | None:
        """The output of a git command; None if it is empty or the command fails."""
        try:
            return self.run(*words) or None
        except EnvironmentProblem:
            return None


def _open(folder: Path) -> git.Repo:
    try:
        import git
    except ImportError as error:  # GitPython looks for the program when it is imported
        raise EnvironmentProblem(f"git does not run: {str(error).splitlines()[0]} Install git.") from None

    class OwnGroup(git.Git):
        """Runs git in its own process group: Ctrl-C in a terminal would end git before the session can decide."""

        def execute(self, command: Any, *arguments: Any, **options: Any) -> Any:
            return super().execute(command, *arguments, start_new_session=True, **options)

    class Repository(git.Repo):
        GitCommandWrapperType = OwnGroup

    try:
        return Repository(folder, search_parent_directories=True, expand_vars=False)
    except (git.InvalidGitRepositoryError, git.NoSuchPathError):
        raise UsageError(
            f"{folder} is not in a git repository. Make one (git init, git add, git commit), "
            f"or start with `overnight init DIR`."
        ) from None


def _settings() -> list[str]:
    """Configuration that overrides the repository's."""
    wait = round(LOCK_SECONDS * 1000)
    return [*_SAFE, f"core.filesRefLockTimeout={wait}", f"core.packedRefsTimeout={wait}"]


def _complaint(text: str | None) -> str:
    """The decisive line of git's stderr, without its full stop."""
    plain = (text or "").strip().removeprefix("stderr: '").removesuffix("'")  # GitPython puts it in quotes
    lines = [line.strip(". ") for line in plain.splitlines() if line.strip()]
    return next((line for line in lines if "fatal: " in line or "error: " in line), lines[0] if lines else "no message")


def scrub_environment() -> None:
    """Remove git variables of the caller (a hook, a rebase), which would redirect git to another repository."""
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_NAMESPACE"):
        os.environ.pop(name, None)
