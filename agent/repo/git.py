"""Runs git commands in a repository, with nothing of its configuration that could run a program."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

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

    def feed(self, data: bytes, *words: str, env: Mapping[str, str] | None = None) -> str:
        """The output of a git command that reads ``data``."""
        with _file_of(data) as stdin:
            return self.run(*words, istream=stdin, env=dict(env or {}))

    def output(self, *words: str, data: bytes = b"") -> bytes:
        """The output of a git command, unchanged."""
        with _file_of(data) as stdin:
            options = {"stdout_as_string": False, "strip_newline_in_stdout": False}
            return bytes(self._execute(*words, istream=stdin, **options))

    def run(self, *words: str, **options: Any) -> str:
        """The output of a git command. Raises ``EnvironmentProblem`` with git's message if the command fails."""
        return str(self._execute(*words, **options))

    def _execute(self, *words: str, **options: Any) -> Any:
        import git

        flags = [flag for setting in _settings() for flag in ("-c", setting)]
        try:  # -C, because GitPython expands a $ in the path of its working directory
            command = ["git", "-C", str(self.top), "--no-optional-locks", *flags, *words]
            return self._repo.git.execute(command, **options)
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


@contextmanager
def _file_of(data: bytes) -> Iterator[IO[bytes]]:
    """A file without a name that holds ``data``, for the input of a command."""
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.seek(0)
        yield file


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
