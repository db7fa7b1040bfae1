"""Git plumbing: commits are built from blobs and trees, refs move by compare-and-swap, nothing is ever checked out.

The user's checkout, index and HEAD are read and never written. Hooks and filters of the target's repository are never
run: the object database is read directly (no smudge filters), and every git command gets an empty hooks path.
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
LOCK_SECONDS = 3.0  # to wait for a lock: another git may be at work for a moment
_SAFE = (
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "gc.auto=0",
    "maintenance.auto=false",
    "core.pager=cat",
    "diff.external=",
    "protocol.allow=never",
)


def _settings() -> list[str]:
    """What git is told each time, whatever its files of configuration say."""
    wait = round(LOCK_SECONDS * 1000)
    return [*_SAFE, f"core.filesRefLockTimeout={wait}", f"core.packedRefsTimeout={wait}"]


def _open(folder: Path) -> git.Repo:
    import git

    class Apart(git.Git):
        """In a process group of its own: Ctrl-C in a terminal is for the session to decide on, and would end it."""

        def execute(self, command: Any, *arguments: Any, **options: Any) -> Any:
            return super().execute(command, *arguments, start_new_session=True, **options)

    class Repository(git.Repo):
        GitCommandWrapperType = Apart

    return Repository(folder, search_parent_directories=True)


class RefMoved(EnvironmentProblem):
    """Somebody else moved a ref since it was read."""


@dataclass(frozen=True)
class Tree:
    """The target's files in a commit, away from the repository: each path, its bytes, and whether it is a program."""

    files: tuple[tuple[str, bytes, bool], ...]

    def write(self, directory: Path) -> None:
        for path, data, program in self.files:
            place = directory / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(data)
            place.chmod(0o755 if program else 0o644)


@dataclass(frozen=True)
class Commit:
    """What a reader of the history needs of one commit."""

    sha: str
    parents: tuple[str, ...]
    subject: str
    body: str
    when: int
    tree: str


class Repo:
    """A folder of a git repository: the target."""

    def __init__(self, folder: Path):
        import git

        try:
            self._repo = _open(folder)
        except (git.InvalidGitRepositoryError, git.NoSuchPathError):
            raise UsageError(
                f"{folder} is not in a git repository. Make one (git init, git add, git commit), "
                f"or start with `overnight init DIR`."
            ) from None
        if self._repo.bare or self._repo.working_tree_dir is None:
            raise UsageError(f"{folder} is a bare repository. Clone it, and name the folder of the clone.")
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
        """The commit that HEAD points to. Raises ``UsageError`` for a repository without commits."""
        found = self.resolve("HEAD")
        if found is None:
            raise UsageError(f"the repository {self.top} has no commit yet: git add the target, and commit it.")
        return found

    def resolve(self, revision: str) -> str | None:
        """The full hash of a commit, or None."""
        return self._try("rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")

    def need(self, commits: Iterable[str], tag: str) -> None:
        """Commits of a run that someone wants to look at.

        Raises:
            UsageError: one of them is not in this repository.
        """
        gone = next((commit for commit in commits if not self._holds(commit)), None)
        if gone:
            raise UsageError(
                f"commit {gone[:12]} of run {tag} is not in {self.top}: was it pruned, or is this another clone? "
                f"Fetch refs/autoresearch/{tag}/*, or name the right folder with --target."
            )

    def _holds(self, commit: str) -> bool:
        """Whether a full hash is a commit of this repository. Asks one process for all of them, not one for each."""
        from git.exc import ODBError

        try:
            return bool(self._repo.commit(commit).tree)
        except (ValueError, ODBError):
            return False

    def dirty(self) -> list[PurePosixPath]:
        """Files of the target in HEAD that look different in the working tree.

        Read and compared here: ``git status`` runs the clean filters that the repository configures.
        """
        return [relative for relative, blob in self._files(self.head()) if _differs(self.folder / relative, blob)]

    def read(self, commit: str, path: str) -> str:
        """The text of one file of the target in a commit, bytes unchanged but for UTF-8 decoding."""
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
        """Write the target's files of a commit into a directory. Links and submodules, which can lead out, are not."""
        self.tree(commit).write(directory)

    def tree(self, commit: str) -> Tree:
        """What ``export`` writes, to be written elsewhere."""
        files = self._files(commit)
        return Tree(tuple((str(path), blob.data_stream.read(), bool(blob.mode & 0o111)) for path, blob in files))

    def _files(self, commit: str) -> Iterator[tuple[PurePosixPath, Any]]:
        """The target's regular files in a commit: their paths and blobs."""
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
        return Commit(
            raw.hexsha,
            tuple(p.hexsha for p in raw.parents),
            subject,
            body.strip("\n"),
            raw.committed_date,
            raw.tree.hexsha,
        )

    def history(self, revisions: str) -> list[Commit]:
        """Commits of a range or a tip, oldest first, following first parents."""
        text = self._try("rev-list", "--first-parent", "--reverse", "--end-of-options", revisions)
        return [self.commit(sha) for sha in (text or "").split()]

    def identity(self) -> tuple[str, str]:
        """Name and mail of the user, from git's configuration.

        Raises:
            UsageError: git does not know them.
        """
        name, mail = (self._try("config", "--get", f"user.{part}") for part in ("name", "email"))
        if not name or not mail:
            raise UsageError(
                'git does not know who you are. Do: git config --global user.name "Your Name" && '
                "git config --global user.email you@example.org"
            )
        return name, mail

    def is_branch_name(self, name: str) -> bool:
        """Whether git accepts it as it is: not ``a b``, ``-x`` or ``@{-1}``."""
        return self._try("check-ref-format", "--branch", name) == name

    def merge_base(self, one: str, other: str) -> str | None:
        """The newest commit that both have come from; None without one, or where a name is no commit."""
        a, b = self.resolve(one), self.resolve(other)
        return self._try("merge-base", a, b) if a and b else None

    def diff(self, before: str, after: str) -> str:
        """The unified diff between two commits, by git itself, without external drivers."""
        return self._run("diff", "--no-ext-diff", "--no-textconv", "--no-color", before, after) + "\n"

    # refs

    def refs(self, prefix: str) -> dict[str, str]:
        text = self._run("for-each-ref", "--format=%(refname) %(objectname)", prefix)
        return dict(line.split(" ", 1) for line in text.splitlines())

    def ref(self, name: str) -> str | None:
        return self._try("rev-parse", "--verify", "--quiet", name)

    def move(self, name: str, new: str, old: str | None) -> None:
        """Compare-and-swap: ``old`` is None for a ref that must not exist yet.

        Raises:
            RefMoved: the ref is not where it was expected, or git's lock on it is held.
        """
        import git

        try:
            self._git.execute(
                self._argv("update-ref", "--create-reflog", "-m", "overnight", name, new, old or "0" * 40)
            )
        except git.GitCommandError as error:
            now = self.ref(name)
            if now == new:
                return
            if now == old:  # nobody was quicker: git itself could not
                raise RefMoved(
                    f"cannot move {name} to {new[:12]}: {_complaint(error.stderr)}. "
                    f"Free some space, or remove the lock if no git is at work."
                ) from None
            raise RefMoved(
                f"cannot move {name} to {new[:12]}: it is at {(now or 'nothing')[:12]}, "
                f"expected {(old or 'nothing')[:12]} ({_complaint(error.stderr)})."
            ) from None

    def delete(self, name: str, old: str) -> None:
        self._run("update-ref", "-d", name, old)

    def checked_out(self, branch: str) -> Path | None:
        """The worktree that has a branch checked out, if any."""
        where: Path | None = None
        for line in self._run("worktree", "list", "--porcelain").splitlines():
            if line.startswith("worktree "):
                where = Path(line[9:])
            elif line == f"branch refs/heads/{branch}":
                return where
        return None

    # writing

    def build(
        self,
        parent: str,
        files: Mapping[str, str],
        message: str,
        when: int,
        *,
        parents: tuple[str, ...] | None = None,
        author: tuple[str, str] = AUTHOR,
    ) -> str:
        """A commit with ``parent``'s tree and the given texts in place of the target's files; no ref moves.

        The hash depends on the arguments alone; ``author`` (name, mail) commits too, at ``when`` (seconds, UTC).
        """
        tree = self._tree(parent, files) if files else self.commit(parent).tree
        return self.commit_tree(tree, (parent,) if parents is None else parents, message, when, author)

    def commit_tree(
        self, tree: str, parents: tuple[str, ...], message: str, when: int, author: tuple[str, str] = AUTHOR
    ) -> str:
        flags = [flag for parent in parents for flag in ("-p", parent)]
        name, mail = author
        date = f"@{when} +0000"
        who = {f"GIT_{role}_{part}": value for role in ("AUTHOR", "COMMITTER")
               for part, value in (("NAME", name), ("EMAIL", mail), ("DATE", date))}  # fmt: skip
        return self._feed(message.encode(), "commit-tree", tree, *flags, "-F", "-", env=who)

    def _tree(self, parent: str, files: Mapping[str, str]) -> str:
        tree = self.commit(parent).tree
        for path, text in files.items():
            blob = self._feed(text.encode("utf-8", "surrogateescape"), "hash-object", "-w", "--stdin")
            tree = self._replaced(tree, f"{self.prefix}{path}", blob)
        return tree

    def _replaced(self, tree: str, path: str, sha: str) -> str:
        """The tree with another blob at ``path``. No index: a file of one would stay behind after a SIGKILL."""
        name, _, rest = path.partition("/")
        entries = self._run("ls-tree", "-z", tree).split("\0")  # each: mode, kind, hash, tab, name
        place = [entry.partition("\t")[2] for entry in entries].index(name)
        mode, kind, old = entries[place].partition("\t")[0].split(" ")
        entries[place] = f"{mode} {kind} {self._replaced(old, rest, sha) if rest else sha}\t{name}"
        return self._feed(os.fsencode("\0".join(entries)), "mktree", "-z", "--missing")

    def _feed(self, data: bytes, *words: str, env: Mapping[str, str] | None = None) -> str:
        with tempfile.TemporaryFile() as stdin:
            stdin.write(data)
            stdin.seek(0)
            return self._run(*words, istream=stdin, env=dict(env or {}))

    def _run(self, *words: str, **options: Any) -> str:
        """What a git command prints.

        Raises:
            EnvironmentProblem: it failed, which on a sound repository means a full disk or a lock that is held.
        """
        import git

        try:
            return str(self._git.execute(self._argv(*words), **options))
        except git.GitCommandError as error:
            raise EnvironmentProblem(f"git {words[0]} failed in {self.top}: {_complaint(error.stderr)}.") from None

    def _try(self, *words: str) -> str | None:
        import git

        try:
            return str(self._git.execute(self._argv(*words))) or None
        except git.GitCommandError:
            return None

    @staticmethod
    def _argv(*words: str) -> list[str]:
        options = [flag for setting in _settings() for flag in ("-c", setting)]
        return ["git", "--no-optional-locks", *options, *words]


def _differs(path: Path, blob: Any) -> bool:
    """Whether a file of the working tree holds something else than its blob; line ends do not count."""
    try:
        data = path.read_bytes()
    except OSError:
        return True
    kept: bytes = blob.data_stream.read()
    return data != kept and data.replace(b"\r\n", b"\n") != kept.replace(b"\r\n", b"\n")


def _complaint(text: str | None) -> str:
    """The line of git's complaint that says what is wrong."""
    lines = [line.strip().strip("'") for line in (text or "").splitlines() if line.strip()]
    return next((line for line in lines if "fatal: " in line or "error: " in line), lines[0] if lines else "no message")


def scrub_environment() -> None:
    """Git variables of the caller (a hook, a rebase) must not redirect our plumbing to another repository."""
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_NAMESPACE"):
        os.environ.pop(name, None)
