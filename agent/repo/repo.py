"""Git plumbing: commits are built from blobs and trees, refs move by compare-and-swap, nothing is checked out.

The user's checkout, index and HEAD are read and never written. Smudge filters of the target's repository never run:
objects are read directly. The git command reads objects, because it knows every object format (SHA-1, SHA-256).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from agent.errors import EnvironmentProblem, UsageError
from agent.repo.git import Git

AUTHOR = ("Overnight", "overnight@localhost")
_FORMAT = "%H%n%P%n%ct%n%T%n%B"  # fields of a Commit


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
        UsageError, EnvironmentProblem: as ``Git``.
    """

    def __init__(self, folder: Path):
        self.git = Git(folder)
        self.top, self.folder = self.git.top, folder.resolve()
        prefix = PurePosixPath(self.folder.relative_to(self.top).as_posix())
        self.prefix = "" if str(prefix) == "." else f"{prefix}/"

    def close(self) -> None:
        self.git.close()

    # reading

    def head(self) -> str:
        """The commit of HEAD. Raises ``UsageError`` if git finds none."""
        try:
            return self.git.run("rev-parse", "--verify", "HEAD^{commit}")
        except EnvironmentProblem as error:
            advice = ""
            if sha := self.git.attempt("rev-parse", "--verify", "--quiet", "HEAD"):
                advice = f" The object of commit {sha[:12]} is missing or damaged: git fsck lists what else is."
            elif "Needed a single revision" in str(error):
                advice = " A target needs a first commit: git add, git commit."
            raise UsageError(f"{error}{advice}") from None

    def resolve(self, revision: str) -> str | None:
        """The full hash of a commit, or None."""
        return self.git.attempt("rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")

    def need(self, commits: Iterable[str], tag: str) -> None:
        """Raises ``UsageError`` if one of these commits of run ``tag`` is not in the repository."""
        wanted = list(commits)
        text = self.git.feed("\n".join(wanted).encode(), "cat-file", "--batch-check=%(objecttype)") if wanted else ""
        found = zip(wanted, text.split("\n"), strict=True)
        gone = next((commit for commit, kind in found if kind != "commit"), None)
        if gone:
            raise UsageError(
                f"commit {gone[:12]} of run {tag} is not in {self.top}: it was pruned, or this is another clone. "
                f"Fetch refs/autoresearch/{tag}/*, or name the right folder with --target."
            )

    def holds(self, commit: str) -> bool:
        """Whether a full hash is a commit of this repository."""
        return self.git.feed(commit.encode(), "cat-file", "--batch-check=%(objecttype)").strip() == "commit"

    def read(self, commit: str, path: str) -> str:
        """The text of one file of the target in a commit. Bytes that are not UTF-8 become surrogate escapes."""
        if not self.has(commit, path):
            raise UsageError(f"commit {commit[:12]} has no file {self.prefix}{path}: is it committed?")
        data = self.git.output("cat-file", "blob", f"{commit}:{self.prefix}{path}")
        return data.decode("utf-8", "surrogateescape")

    def has(self, commit: str, path: str) -> bool:
        """Whether a commit holds a file of the target."""
        name = f"{commit}:{self.prefix}{path}"
        return self.git.attempt("rev-parse", "--verify", "--quiet", "--end-of-options", name) is not None

    def export(self, commit: str, directory: Path) -> None:
        """Write the target's files of a commit. Links and submodules are skipped: they can point outside."""
        self.tree(commit).write(directory)

    def tree(self, commit: str) -> Tree:
        """The files that ``export`` writes."""
        folder = f"{commit}:{self.prefix.rstrip('/')}" if self.prefix else f"{commit}^{{tree}}"
        entries = [entry.partition("\t") for entry in self.git.run("ls-tree", "-r", "-z", folder).split("\0") if entry]
        regular = [(head.split(" "), name) for head, _, name in entries if head.startswith("100")]
        safe = [(head, name) for head, name in regular if ".." not in PurePosixPath(name).parts and name[0] != "/"]
        contents = self._blobs([head[2] for head, _ in safe])
        pairs = zip(safe, contents, strict=True)
        return Tree(tuple((name, data, bool(int(head[0], 8) & 0o111)) for (head, name), data in pairs))

    def _blobs(self, hashes: list[str]) -> Iterator[bytes]:
        """The contents of blobs."""
        text = self.git.output("cat-file", "--batch", data="\n".join(hashes).encode()) if hashes else b""
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
        form = ("-z", "--no-show-signature", "--no-color", f"--format=tformat:{_FORMAT}")
        text = self.git.run("log", *form, *words, "--")
        fields = (entry.split("\n", 4) for entry in text.split("\0") if entry)
        return [_commit(*entry) for entry in fields]

    def history(self, revisions: str) -> list[Commit]:
        """Commits of a range or a tip along first parents, oldest first; [] for an unknown revision."""
        try:
            return self._commits("--first-parent", "--reverse", "--end-of-options", revisions)
        except EnvironmentProblem:
            return []

    def merge_base(self, one: str, other: str) -> str | None:
        """The newest common ancestor; None without one or for an unknown revision."""
        a, b = self.resolve(one), self.resolve(other)
        return self.git.attempt("merge-base", a, b) if a and b else None

    def diff(self, before: str, after: str) -> str:
        """The unified diff between two commits, without external drivers."""
        return self.git.run("diff", "--no-ext-diff", "--no-textconv", "--no-color", before, after) + "\n"

    # refs

    def refs(self, prefix: str) -> dict[str, str]:
        """Refs below ``prefix``: name and hash."""
        text = self.git.run("for-each-ref", "--format=%(refname) %(objectname)", prefix)
        return dict(line.split(" ", 1) for line in text.split("\n") if line)

    def ref(self, name: str) -> str | None:
        return self.git.attempt("rev-parse", "--verify", "--quiet", name)

    def move(self, name: str, new: str, old: str | None) -> None:
        """Compare-and-swap of a ref. ``old`` is None for a ref that must not exist yet.

        Raises:
            RefMoved: the ref is elsewhere, or its lock is held; quotes git.
        """
        try:
            self.git.run("update-ref", "--create-reflog", "-m", "overnight", name, new, old or "")
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
            blob = self.git.feed(text.encode("utf-8", "surrogateescape"), "hash-object", "-w", "--stdin")
            tree = self._replaced(tree, f"{self.prefix}{path}", blob)
        return self.commit_tree(tree, (parent,), message, when, author)

    def commit_tree(
        self, tree: str, parents: tuple[str, ...], message: str, when: int, author: tuple[str, str] = AUTHOR
    ) -> str:
        """A commit of an existing tree; arguments as in ``build``."""
        flags = [flag for parent in parents for flag in ("-p", parent)]
        values = zip(("NAME", "EMAIL", "DATE"), (*author, f"@{when} +0000"), strict=True)
        who = {f"GIT_{role}_{part}": value for part, value in values for role in ("AUTHOR", "COMMITTER")}
        return self.git.feed(message.encode(), "commit-tree", tree, *flags, "-F", "-", env=who)

    def _replaced(self, tree: str, path: str, sha: str) -> str:
        """The tree with another blob at ``path``. No index file: a SIGKILL would leave one behind."""
        name, _, rest = path.partition("/")
        entries = self.git.run("ls-tree", "-z", tree).split("\0")  # each: mode, kind, hash, tab, name
        place = [entry.partition("\t")[2] for entry in entries].index(name)
        mode, kind, old = entries[place].partition("\t")[0].split(" ")
        entries[place] = f"{mode} {kind} {self._replaced(old, rest, sha) if rest else sha}\t{name}"
        return self.git.feed(os.fsencode("\0".join(entries)), "mktree", "-z", "--missing")


def _commit(sha: str, parents: str, when: str, tree: str, message: str) -> Commit:
    subject, _, body = message.partition("\n")
    return Commit(sha, tuple(parents.split()), subject, body.strip("\n"), int(when), tree)
