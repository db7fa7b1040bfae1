"""Git plumbing: commits are built from blobs and trees, refs move by compare-and-swap, nothing is checked out.

The user's checkout, index and HEAD are read and never written. Smudge filters of the target's repository never run:
objects are read directly. The git command reads objects, because it knows every object format (SHA-1, SHA-256).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path, PurePosixPath

from agent.errors import EnvironmentProblem, UsageError
from agent.repo.git import Git, output_of
from agent.repo.refs import Refs

AUTHOR = ("Overnight", "overnight@localhost")
_FORMAT = "%H%n%P%n%ct%n%T%n%B"  # of ``git log``: the fields of a Commit


@dataclass(frozen=True)
class Commit:
    """One commit of the history."""

    sha: str
    parents: tuple[str, ...]
    subject: str
    body: str
    when: int  # seconds since the epoch
    tree: str


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


class Repo:
    """A target: a folder in a git repository.

    Raises:
        UsageError, EnvironmentProblem: as ``Git``.
    """

    def __init__(self, folder: Path):
        self.git = Git(folder)
        self.refs = Refs(self.git)
        self.top, self.folder = self.git.top, folder.resolve()
        prefix = PurePosixPath(self.folder.relative_to(self.top).as_posix())
        self.prefix = "" if str(prefix) == "." else f"{prefix}/"

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

    def need(self, commits: Iterable[str], tag: str) -> None:
        """Raises ``UsageError`` if one of these commits of run ``tag`` is not in the repository."""
        if gone := self._missing(list(commits)):
            raise UsageError(
                f"commit {gone[0][:12]} of session {tag} is not in {self.top}: it was pruned, or this is another "
                f"clone. Fetch refs/autoresearch/{tag}/*, or name the right folder with --target."
            )

    def holds(self, commit: str) -> bool:
        """Whether a full hash is a commit of this repository."""
        return not self._missing([commit])

    def _missing(self, commits: list[str]) -> list[str]:
        kinds = self.git.run("cat-file", "--batch-check=%(objecttype)", data="\n".join(commits).encode()).splitlines()
        # a ledger may hold anything: a name with a line feed has two lines, an empty one may have none
        return [commit for commit, kind in zip_longest(commits, kinds, fillvalue="") if kind != "commit"]

    def read(self, commit: str, path: str) -> str:
        """The text of one file of the target in a commit. Bytes that are not UTF-8 become surrogate escapes."""
        name = f"{self.prefix}{path}"
        entry = self.git.attempt("ls-tree", "--full-tree", commit, "--", name) or ""
        if not entry:
            raise UsageError(f"commit {commit[:12]} has no file {name}: is it committed?")
        if not entry.startswith("100"):
            raise UsageError(f"commit {commit[:12]}: {name} is a link or a folder. Commit the file itself.")
        data = output_of(self.top, "cat-file", "blob", f"{commit}:{name}")
        return data.decode("utf-8", "surrogateescape")

    def has(self, commit: str, path: str) -> bool:
        """Whether a commit holds a file of the target."""
        name = f"{commit}:{self.prefix}{path}"
        return self.git.attempt("rev-parse", "--verify", "--quiet", "--end-of-options", name) is not None

    def tree(self, commit: str) -> Tree:
        """The target's files in a commit. Links and submodules are skipped: they can point outside."""
        folder = f"{commit}:{self.prefix.rstrip('/')}" if self.prefix else f"{commit}^{{tree}}"
        entries = [entry.partition("\t") for entry in self.git.run("ls-tree", "-r", "-z", folder).split("\0") if entry]
        regular = [(head.split(" "), name) for head, _, name in entries if head.startswith("100")]
        safe = [(head, name) for head, name in regular if ".." not in PurePosixPath(name).parts and name[0] != "/"]
        contents = self._blobs([head[2] for head, _ in safe])
        pairs = zip(safe, contents, strict=True)
        return Tree(tuple((name, data, bool(int(head[0], 8) & 0o111)) for (head, name), data in pairs))

    def _blobs(self, hashes: list[str]) -> Iterator[bytes]:
        """The contents of blobs."""
        text = output_of(self.top, "cat-file", "--batch", data="\n".join(hashes).encode()) if hashes else b""
        place = 0
        for _ in hashes:  # each: hash, kind, size, line feed, content, line feed
            start = text.index(b"\n", place) + 1
            head = text[place:start].split()
            if len(head) != 3:
                raise EnvironmentProblem(
                    f"{self.top} lacks object {head[0].decode()[:12]}, as in a partial clone. "
                    f"Fetch all objects: git -C {self.top} fetch --refetch --no-filter"
                )
            size = int(head[2])
            yield text[start : start + size]
            place = start + size + 1

    def resolve(self, revision: str) -> str | None:
        """The full hash of a commit, or None."""
        return self.git.attempt("rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")

    def commit(self, sha: str) -> Commit:
        return self._log("--no-walk", sha)[0]

    def history(self, revisions: str) -> list[Commit]:
        """Commits of a range or a tip along first parents, oldest first."""
        return self._log("--first-parent", "--reverse", "--end-of-options", revisions)

    def _log(self, *words: str) -> list[Commit]:
        form = ("-z", "--no-show-signature", "--no-color", f"--format=tformat:{_FORMAT}")
        found = []
        for entry in filter(None, self.git.run("log", *form, *words, "--").split("\0")):
            sha, parents, when, tree, message = entry.split("\n", 4)
            subject, _, body = message.partition("\n")
            found.append(Commit(sha, tuple(parents.split()), subject, body.strip("\n"), int(when), tree))
        return found

    # writing

    def check_writable(self) -> None:
        """Raises ``EnvironmentProblem`` if git could not add commits or refs."""
        for part in ("objects", "refs"):
            place = self.top / self.git.run("rev-parse", "--git-path", part)
            if not os.access(place, os.W_OK | os.X_OK):
                raise EnvironmentProblem(
                    f"cannot write {place}, where git keeps the commits and refs of a session. "
                    f"Make it writable for this user, or clone the repository and name the clone with --target."
                )

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
            blob = self.git.run("hash-object", "-w", "--stdin", data=text.encode("utf-8", "surrogateescape"))
            tree = self._replaced(tree, f"{self.prefix}{path}", blob)
        return self.commit_tree(tree, (parent,), message, when, author)

    def commit_tree(
        self, tree: str, parents: tuple[str, ...], message: str, when: int, author: tuple[str, str] = AUTHOR
    ) -> str:
        """A commit of an existing tree; arguments as in ``build``."""
        flags = [flag for parent in parents for flag in ("-p", parent)]
        values = zip(("NAME", "EMAIL", "DATE"), (*author, f"@{when} +0000"), strict=True)
        who = {f"GIT_{role}_{part}": value for part, value in values for role in ("AUTHOR", "COMMITTER")}
        return self.git.run("commit-tree", tree, *flags, "-F", "-", data=message.encode(), env=who)

    def _replaced(self, tree: str, path: str, sha: str) -> str:
        """The tree with another blob at ``path``. No index file: a SIGKILL would leave one behind."""
        name, _, rest = path.partition("/")
        entries = self.git.run("ls-tree", "-z", tree).split("\0")  # each: mode, kind, hash, tab, name
        place = [entry.partition("\t")[2] for entry in entries].index(name)
        mode, kind, old = entries[place].partition("\t")[0].split(" ")
        entries[place] = f"{mode} {kind} {self._replaced(old, rest, sha) if rest else sha}\t{name}"
        return self.git.run("mktree", "-z", "--missing", data=os.fsencode("\0".join(entries)))
