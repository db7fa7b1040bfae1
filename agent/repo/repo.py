"""Git plumbing: commits are built from blobs and trees, refs move by compare-and-swap, nothing is checked out.

The user's checkout, index and HEAD are read and never written. Hooks and smudge filters of the target's repository
never run: objects are read directly, and every git command gets an empty hooks path. The git command reads objects,
because it knows every object format (SHA-1, SHA-256).
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
_SAFE = (
    "core.hooksPath=/dev/null", "core.fsmonitor=false", "gc.auto=0", "maintenance.auto=false", "core.pager=cat",
    "diff.external=", "protocol.allow=never", "i18n.logOutputEncoding=UTF-8",
)  # fmt: skip
_FORMAT = "%H%n%P%n%ct%n%T%n%B"  # fields of a Commit
_FILTERS = ("filter", "working-tree-encoding")  # attributes that change the content of a file
_UNSET = ("unspecified", "unset", "")


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
            advice = ""
            if sha := self._try("rev-parse", "--verify", "--quiet", "HEAD"):
                advice = f" The object of commit {sha[:12]} is missing or damaged: git fsck lists what else is."
            elif "Needed a single revision" in str(error):
                advice = " A target needs a first commit: git add, git commit."
            raise UsageError(f"{error}{advice}") from None

    def resolve(self, revision: str) -> str | None:
        """The full hash of a commit, or None."""
        return self._try("rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")

    def need(self, commits: Iterable[str], tag: str) -> None:
        """Raises ``UsageError`` if one of these commits of run ``tag`` is not in the repository."""
        wanted = list(commits)
        text = self._feed("\n".join(wanted).encode(), "cat-file", "--batch-check=%(objecttype)") if wanted else ""
        found = zip(wanted, text.split("\n"), strict=True)
        gone = next((commit for commit, kind in found if kind != "commit"), None)
        if gone:
            raise UsageError(
                f"commit {gone[:12]} of run {tag} is not in {self.top}: it was pruned, or this is another clone. "
                f"Fetch refs/autoresearch/{tag}/*, or name the right folder with --target."
            )

    def holds(self, commit: str) -> bool:
        """Whether a full hash is a commit of this repository."""
        return self._feed(commit.encode(), "cat-file", "--batch-check=%(objecttype)").strip() == "commit"

    def dirty(self) -> list[PurePosixPath]:
        """Files of HEAD that git sees as changed in the working tree."""
        return [path for path, changed in self._raw_differences().items() if changed]

    def filtered(self) -> list[PurePosixPath]:
        """Unchanged files that a filter or an encoding of .gitattributes writes in another form than git stores."""
        names = "\0".join(f"{self.prefix}{path}" for path, changed in self._raw_differences().items() if not changed)
        if not names:
            return []
        fields = self._feed(os.fsencode(names), "check-attr", "-z", "--stdin", *_FILTERS).split("\0")
        named = (path for path, value in zip(fields[::3], fields[2::3], strict=False) if value not in _UNSET)
        return [PurePosixPath(path[len(self.prefix) :]) for path in dict.fromkeys(named)]

    def _raw_differences(self) -> dict[PurePosixPath, bool]:
        """Files whose bytes differ between HEAD and the working tree, and whether git sees a change.

        Git decides about sparse checkouts and filters. Git runs its clean filters only if there are such files.
        """
        files = self.tree(self.head()).files
        differing = [PurePosixPath(path) for path, data, _ in files if _differs(self.folder / path, data)]
        if not differing:
            return {}
        words = ("diff", "--name-only", "--no-renames", "--no-ext-diff", "--no-textconv", "-z", "HEAD")
        changed = set(self._run(*words).split("\0"))
        present = [path for path in differing if f"{self.prefix}{path}" in changed or (self.folder / path).exists()]
        return {path: f"{self.prefix}{path}" in changed for path in present}

    def read(self, commit: str, path: str) -> str:
        """The text of one file of the target in a commit. Bytes that are not UTF-8 become surrogate escapes."""
        if not self.has(commit, path):
            raise UsageError(f"commit {commit[:12]} has no file {self.prefix}{path}: is it committed?")
        data = self._bytes("cat-file", "blob", f"{commit}:{self.prefix}{path}")
        return data.decode("utf-8", "surrogateescape")

    def has(self, commit: str, path: str) -> bool:
        """Whether a commit holds a file of the target."""
        return bool(self._try("rev-parse", "--verify", "--quiet", "--end-of-options", f"{commit}:{self.prefix}{path}"))

    def export(self, commit: str, directory: Path) -> None:
        """Write the target's files of a commit. Links and submodules are skipped: they can point outside."""
        self.tree(commit).write(directory)

    def tree(self, commit: str) -> Tree:
        """The files that ``export`` writes."""
        folder = f"{commit}:{self.prefix.rstrip('/')}" if self.prefix else f"{commit}^{{tree}}"
        entries = [entry.partition("\t") for entry in self._run("ls-tree", "-r", "-z", folder).split("\0") if entry]
        regular = [(head.split(" "), name) for head, _, name in entries if head.startswith("100")]
        safe = [(head, name) for head, name in regular if ".." not in PurePosixPath(name).parts and name[0] != "/"]
        contents = self._blobs([head[2] for head, _ in safe])
        pairs = zip(safe, contents, strict=True)
        return Tree(tuple((name, data, bool(int(head[0], 8) & 0o111)) for (head, name), data in pairs))

    def _blobs(self, hashes: list[str]) -> Iterator[bytes]:
        """The contents of blobs."""
        text = self._bytes("cat-file", "--batch", data="\n".join(hashes).encode()) if hashes else b""
        place = 0
        for _ in hashes:  # each: hash, kind, size, line feed, content, line feed
            start = text.index(b"\n", place) + 1
            head = text[place:start].split()
            if len(head) != 3:
                raise EnvironmentProblem(
                    f"{self.top} lacks object {head[0].decode()[:12]}, as in a partial clone. "
                    f" Fetch all objects: git -C {self.top} fetch --refetch --no-filter"
                )
            size = int(head[2])
            yield text[start : start + size]
            place = start + size + 1

    def commit(self, sha: str) -> Commit:
        return self._commits("--no-walk", sha)[0]

    def _commits(self, *words: str) -> list[Commit]:
        """The commits that ``git log`` lists for ``words``. Raises ``EnvironmentProblem`` for an unknown revision."""
        text = self._run("log", "-z", "--no-show-signature", "--no-color", f"--format=tformat:{_FORMAT}", *words, "--")
        fields = (entry.split("\n", 4) for entry in text.split("\0") if entry)
        return [_commit(*entry) for entry in fields]

    def history(self, revisions: str) -> list[Commit]:
        """Commits of a range or a tip along first parents, oldest first; [] for an unknown revision."""
        try:
            return self._commits("--first-parent", "--reverse", "--end-of-options", revisions)
        except EnvironmentProblem:
            return []

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
        return dict(line.split(" ", 1) for line in text.split("\n") if line)

    def ref(self, name: str) -> str | None:
        return self._try("rev-parse", "--verify", "--quiet", name)

    def move(self, name: str, new: str, old: str | None) -> None:
        """Compare-and-swap of a ref. ``old`` is None for a ref that must not exist yet.

        Raises:
            RefMoved: the ref is elsewhere, or its lock is held; quotes git.
        """
        try:
            self._run("update-ref", "--create-reflog", "-m", "overnight", name, new, old or "")
        except EnvironmentProblem as error:
            now = self.ref(name)
            if now == new:
                return
            if "cannot create" in str(error):
                advice = "Git cannot keep a ref beside a longer one that starts with its name. Rename one of the two."
            elif now == old:
                advice = "Free some disk space, or remove the lock if no git process runs."
            else:
                advice = f"The ref is at {(now or 'nothing')[:12]}, expected {(old or 'nothing')[:12]}."
            raise RefMoved(f"cannot move {name} to {new[:12]}: {error} {advice}") from None

    def checked_out(self, branch: str) -> Path | None:
        """The worktree that has a branch checked out, or None."""
        where: Path | None = None
        for line in self._run("worktree", "list", "--porcelain").split("\n"):
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

    def _bytes(self, *words: str, data: bytes = b"") -> bytes:
        """The output of a git command, unchanged."""
        with tempfile.TemporaryFile() as stdin:
            stdin.write(data)
            stdin.seek(0)
            options = {"stdout_as_string": False, "strip_newline_in_stdout": False}
            return bytes(self._execute(*words, istream=stdin, **options))

    def _run(self, *words: str, **options: Any) -> str:
        """The output of a git command. Raises ``EnvironmentProblem`` with git's message if the command fails."""
        return str(self._execute(*words, **options))

    def _execute(self, *words: str, **options: Any) -> Any:
        import git

        flags = [flag for setting in _settings() for flag in ("-c", setting)]
        try:  # -C, because GitPython expands a $ in the path of its working directory
            return self._git.execute(["git", "-C", str(self.top), "--no-optional-locks", *flags, *words], **options)
        except git.GitCommandNotFound:
            raise EnvironmentProblem("git is not installed, or not on PATH.") from None
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


def _commit(sha: str, parents: str, when: str, tree: str, message: str) -> Commit:
    subject, _, body = message.partition("\n")
    return Commit(sha, tuple(parents.split()), subject, body.strip("\n"), int(when), tree)


def _differs(path: Path, kept: bytes) -> bool:
    """Whether a file of the working tree differs from its blob, apart from line ends."""
    try:
        data = path.read_bytes()
    except OSError:
        return True
    return data != kept and data.replace(b"\r\n", b"\n") != kept.replace(b"\r\n", b"\n")


def _complaint(text: str | None) -> str:
    """The decisive line of git's stderr, without its full stop."""
    plain = (text or "").strip().removeprefix("stderr: '").removesuffix("'")  # GitPython puts it in quotes
    lines = [line.strip(". ") for line in plain.splitlines() if line.strip()]
    return next((line for line in lines if "fatal: " in line or "error: " in line), lines[0] if lines else "no message")


def scrub_environment() -> None:
    """Remove git variables of the caller (a hook, a rebase), which would redirect git to another repository."""
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_NAMESPACE"):
        os.environ.pop(name, None)
