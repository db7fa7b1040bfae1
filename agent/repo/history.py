"""Commits of a repository: read with ``git log``, found by name."""

from __future__ import annotations

from dataclasses import dataclass

from agent.errors import EnvironmentProblem
from agent.repo.git import Git

_FORMAT = "%H%n%P%n%ct%n%T%n%B"  # fields of a Commit


@dataclass(frozen=True)
class Commit:
    """One commit of the history."""

    sha: str
    parents: tuple[str, ...]
    subject: str
    body: str
    when: int  # seconds since the epoch
    tree: str


def resolve(git: Git, revision: str) -> str | None:
    """The full hash of a commit, or None."""
    return git.attempt("rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")


def commits(git: Git, *words: str) -> list[Commit]:
    """The commits that ``git log`` lists for ``words``. Raises ``EnvironmentProblem`` for an unknown revision."""
    form = ("-z", "--no-show-signature", "--no-color", f"--format=tformat:{_FORMAT}")
    text = git.run("log", *form, *words, "--")
    return [_commit(*entry.split("\n", 4)) for entry in text.split("\0") if entry]


def history(git: Git, revisions: str) -> list[Commit]:
    """Commits of a range or a tip along first parents, oldest first; [] for an unknown revision."""
    try:
        return commits(git, "--first-parent", "--reverse", "--end-of-options", revisions)
    except EnvironmentProblem:
        return []


def merge_base(git: Git, one: str, other: str) -> str | None:
    """The newest common ancestor; None without one or for an unknown revision."""
    a, b = resolve(git, one), resolve(git, other)
    return git.attempt("merge-base", a, b) if a and b else None


def _commit(sha: str, parents: str, when: str, tree: str, message: str) -> Commit:
    subject, _, body = message.partition("\n")
    return Commit(sha, tuple(parents.split()), subject, body.strip("\n"), int(when), tree)
