"""Git plumbing: commits are built from blobs and trees, refs move by compare-and-swap, nothing is checked out.

The user's checkout, index and HEAD are read and never written. Hooks and filters of the target's repository never run:
objects are read directly (no smudge filters), and every git command gets an empty hooks path.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from agent.errors import EnvironmentProblem, UsageError

if TYPE_CHECKING:
    import git

AUTHOR = ("Overnight", "overnight@localhost")
LOCK_SECONDS = 3.0  # wait for a lock that another git process holds
NOWHERE = "0" * 40  # git's name for a ref that does not exist
_SAFE = (
    "core.hooksPath=/dev/null", "core.fsmonitor=false", "gc.auto=0", "maintenance.auto=false", "core.pager=cat",
    "diff.external=", "protocol.allow=never",
)  # fmt: skip


class RefMoved(EnvironmentProblem):
    """Another process moved a ref since it was read, or holds its lock."""


@dataclass(frozen=True)
class Tree:
    """The target's files in a commit, without the repository: path, bytes, whether it is executable."""

    files: tuple[tuple[str, bytes, bool], ...]

    def write(self, directory: Path) -> None:
        for path, data, executable in self.files:
            place = directory / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(data)
            place.chmod(0o755 if executable else 0o644)


@dataclass(frozen=True)
class Commit:
    """One commit of the history."""

    sha: str
    parents: tuple[str, ...]
    subject: str
    body: str
    when: int  # seconds since the epoch
    tree: str


class Repo:
    """A target: a folder in a git repository.

    Raises:
        UsageError: the folder is not in a repository, or the repository is bare.
        EnvironmentProblem: git is not installed.
    """

    def __init__(self, folder: Path):
        self._repo = _open(folder)
        if self._repo.bare or self._repo.working_tree_dir is None:
            raise UsageError(f"{folder} is a bare repository. Clone it and name the folder of the clone.")
        self._git = self._repo.git
        self._git.set_persistent_git_options(c=_settings(), no_optional_locks=True)
        self.top = Path(self._repo.working_tree_dir).resolve()
        self.folder = folder.resolve()
        prefix = PurePosixPath(self.folder.relative_to(self.top).as_posix())
        self.prefix = "" if str(prefix) == "." else f"{prefix}/"

    def close(self) -> None:
        self._repo.close()

    # reading

    def head(self) -> str:
        """The commit of HEAD. Raises ``UsageError`` if git finds none."""
        try:
            return self._run("rev-parse", "--verify", "HEAD^{commit}")
        except EnvironmentProblem as error:
            raise UsageError(f"{error} A target needs a first commit: git add, git commit.") from None

    def resolve(self, revision: str) -> str | None:
        """The full hash of a commit, or None."""
        return self._try("rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")

    def need(self, commits: Iterable[str], tag: str) -> None:
        """Raises ``UsageError`` if one of these commits of run ``tag`` is not in the repository."""
        gone = next((commit for commit in commits if not self.holds(commit)), None)
        if gone:
            raise UsageError(
                f"commit {gone[:12]} of run {tag} is not in {self.top}: it was pruned, or this is another clone. "
                f"Fetch refs/autoresearch/{tag}/*, or name the right folder with --target."
            )

    def holds(self, commit: str) -> bool:
        """Whether a full hash is a commit here. One git process answers for all commits."""
        from git.exc import ODBError

        try:
            return bool(self._repo.commit(commit).tree)
        except (ValueError, ODBError):
            return False

    def dirty(self) -> list[PurePosixPath]:
        """Files of HEAD that differ in the working tree. ``git status`` would run the repository's clean filters."""
        return [relative for relative, blob in self._files(self.head()) if _differs(self.folder / relative, blob)]

    def read(self, commit: str, path: str) -> str:
        """The text of one file of the target in a commit. Bytes that are not UTF-8 become surrogate escapes."""
        try:
            blob = self._repo.commit(commit).tree / (self.prefix + path)
        except KeyError:
            raise UsageError(f"commit {commit[:12]} has no file {self.prefix}{path}: is it committed?") from None
        return bytes(blob.data_stream.read()).decode("utf-8", "surrogateescape")

    def has(self, commit: str, path: str) -> bool:
        """Whether a commit holds a file of the target."""
        try:
            return bool(self._repo.commit(commit).tree / (self.prefix + path))
        except KeyError:
            return False

    def export(self, commit: str, directory: Path) -> None:
        """Write the target's files of a commit. Links and submodules are skipped: they can point outside."""
        self.tree(commit).write(directory)

    def tree(self, commit: str) -> Tree:
        """The files that ``export`` writes."""
        files = self._files(commit)
        return Tree(tuple((str(path), blob.data_stream.read(), bool(blob.mode & 0o111)) for path, blob in files))

    def _files(self, commit: str) -> Iterator[tuple[PurePosixPath, Any]]:
        """Paths and blobs of the target's regular files in a commit."""
        root = self._repo.commit(commit).tree
        if self.prefix:
            root = root / self.prefix.rstrip("/")
        for item in root.traverse():
            blob: Any = item
            if blob.type == "blob" and (blob.mode & 0o170000) == 0o100000:
                relative = PurePosixPath(blob.path).relative_to(self.prefix or ".")
                if not relative.is_absolute() and ".." not in relative.parts:
                    yield relative, blob

    def commit(self, sha: str) -> Commit:
        raw = self._repo.commit(sha)
        subject, _, body = str(raw.message).partition("\n")
        parents = tuple(parent.hexsha for parent in raw.parents)
        return Commit(raw.hexsha, parents, subject, body.strip("\n"), raw.committed_date, raw.tree.hexsha)

    def history(self, revisions: str) -> list[Commit]:
        """Commits of a range or a tip along first parents, oldest first; [] for an unknown revision."""
        text = self._try("rev-list", "--first-parent", "--reverse", "--end-of-options", revisions)
        return [self.commit(sha) for sha in (text or "").split()]

    def identity(self) -> tuple[str, str]:
        """Name and email of the user. Raises ``UsageError`` if git's configuration lacks them."""
        name, mail = (self._try("config", "--get", f"user.{part}") for part in ("name", "email"))
        if not name or not mail:
            raise UsageError(
                'git has no user.name or user.email. Run: git config --global user.name "Your Name" && '
                "git config --global user.email you@example.org"
            )
        return name, mail

    def is_branch_name(self, name: str) -> bool:
        """Whether git accepts the name unchanged: not ``a b``, ``-x`` or ``@{-1}``."""
        return self._try("check-ref-format", "--branch", name) == name

    def merge_base(self, one: str, other: str) -> str | None:
        """The newest common ancestor; None without one or for an unknown revision."""
        a, b = self.resolve(one), self.resolve(other)
        return self._try("merge-base", a, b) if a and b else None

    def diff(self, before: str, after: str) -> str:
        """The unified diff between two commits, without external drivers."""
        return self._run("diff", "--no-ext-diff", "--no-textconv", "--no-color", before, after) + "\n"

    # refs

    def refs(self, prefix: str) -> dict[str, str]:
        """Refs below ``prefix``: name and hash."""
        text = self._run("for-each-ref", "--format=%(refname) %(objectname)", prefix)
        return dict(line.split(" ", 1) for line in text.splitlines())

    def ref(self, name: str) -> str | None:
        return self._try("rev-parse", "--verify", "--quiet", name)

    def move(self, name: str, new: str, old: str | None) -> None:
        """Compare-and-swap of a ref. ``old`` is None for a ref that must not exist yet.

        Raises:
            RefMoved: the ref is elsewhere, or its lock is held; quotes git.
        """
        try:
            self._run("update-ref", "--create-reflog", "-m", "overnight", name, new, old or NOWHERE)
        except EnvironmentProblem as error:
            now = self.ref(name)
            if now == new:
                return
            if now == old:
                advice = "Free some disk space, or remove the lock if no git process runs."
            else:
                advice = f"The ref is at {(now or 'nothing')[:12]}, expected {(old or 'nothing')[:12]}."
            raise RefMoved(f"cannot move {name} to {new[:12]}: {error} {advice}") from None

    def checked_out(self, branch: str) -> Path | None:
        """The worktree that has a branch checked out, or None."""
        where: Path | None = None
        for line in self._run("worktree", "list", "--porcelain").splitlines():
            if line.startswith("worktree "):
                where = Path(line[9:])
            elif line == f"branch refs/heads/{branch}":
                return where
        return None

    # writing

    def build(
        self, parent: str, files: Mapping[str, str], message: str, when: int, *, author: tuple[str, str] = AUTHOR
    ) -> str:
        """A commit on ``parent`` with the given texts in place of the target's files; no ref moves.

        The hash depends on the arguments alone.

        Args:
            files: path in the target and new text.
            when: date of author and committer in seconds since the epoch.
            author: name and email of author and committer.
        """
        tree = self.commit(parent).tree
        for path, text in files.items():
            blob = self._feed(text.encode("utf-8", "surrogateescape"), "hash-object", "-w", "--stdin")
            tree = self._replaced(tree, f"{self.prefix}{path}", blob)
        return self.commit_tree(tree, (parent,), message, when, author)

    def commit_tree(
        self, tree: str, parents: tuple[str, ...], message: str, when: int, author: tuple[str, str] = AUTHOR
    ) -> str:
        """A commit of an existing tree; arguments as in ``build``."""
        flags = [flag for parent in parents for flag in ("-p", parent)]
        values = zip(("NAME", "EMAIL", "DATE"), (*author, f"@{when} +0000"), strict=True)
        who = {f"GIT_{role}_{part}": value for part, value in values for role in ("AUTHOR", "COMMITTER")}
        return self._feed(message.encode(), "commit-tree", tree, *flags, "-F", "-", env=who)

    def _replaced(self, tree: str, path: str, sha: str) -> str:
        """The tree with another blob at ``path``. No index file: a SIGKILL would leave one behind."""
        name, _, rest = path.partition("/")
        entries = self._run("ls-tree", "-z", tree).split("\0")  # each: mode, kind, hash, tab, name
        place = [entry.partition("\t")[2] for entry in entries].index(name)
        mode, kind, old = entries[place].partition("\t")[0].split(" ")
        entries[place] = f"{mode} {kind} {self._replaced(old, rest, sha) if rest else sha}\t{name}"
        return self._feed(os.fsencode("\0".join(entries)), "mktree", "-z", "--missing")

    # git commands

    def _feed(self, data: bytes, *words: str, env: Mapping[str, str] | None = None) -> str:
        with tempfile.TemporaryFile() as stdin:
            stdin.write(data)
            stdin.seek(0)
            return self._run(*words, istream=stdin, env=dict(env or {}))

    def _run(self, *words: str, **options: Any) -> str:
        """The output of a git command. Raises ``EnvironmentProblem`` with git's message if the command fails."""
        import git

        flags = [flag for setting in _settings() for flag in ("-c", setting)]
        try:
            return str(self._git.execute(["git", "--no-optional-locks", *flags, *words], **options))
        except git.GitCommandError as error:
            raise EnvironmentProblem(f"git {words[0]} failed in {self.top}: {_complaint(error.stderr)}.") from None

    def _try(self, *words: str) -> str | None:
        """The output of a git command; None if it is empty or the command fails."""
        try:
            return self._run(*words) or None
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
        return Repository(folder, search_parent_directories=True)
    except (git.InvalidGitRepositoryError, git.NoSuchPathError):
        raise UsageError(
            f"{folder} is not in a git repository. Make one (git init, git add, git commit), "
            f"or start with `overnight init DIR`."
        ) from None


def _settings() -> list[str]:
    """Configuration that overrides the repository's."""
    wait = round(LOCK_SECONDS * 1000)
    return [*_SAFE, f"core.filesRefLockTimeout={wait}", f"core.packedRefsTimeout={wait}"]


def _differs(path: Path, blob: Any) -> bool:
    """Whether a file of the working tree differs from its blob, apart from line ends."""
    try:
        data = path.read_bytes()
    except OSError:
        return True
    kept: bytes = blob.data_stream.read()
    return data != kept and data.replace(b"\r\n", b"\n") != kept.replace(b"\r\n", b"\n")


def _complaint(text: str | None) -> str:
    """The decisive line of git's stderr, without its full stop."""
    lines = [line.strip().removeprefix("stderr: ").strip("'. ") for line in (text or "").splitlines() if line.strip()]
    return next((line for line in lines if "fatal: " in line or "error: " in line), lines[0] if lines else "no message")


def scrub_environment() -> None:
    """Remove git variables of the caller (a hook, a rebase), which would redirect git to another repository."""
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_NAMESPACE"):
        os.environ.pop(name, None)
