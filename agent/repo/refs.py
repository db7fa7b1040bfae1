"""The refs of one run under refs/autoresearch/<tag>/ and the branch that mirrors its head."""

from __future__ import annotations

from collections.abc import Iterator

from agent.repo.repo import RefMoved, Repo

REFS = "refs/autoresearch"


class RunRefs:
    """The refs of one run: every attempt, the accepted head, and the branch that mirrors it."""

    def __init__(self, repo: Repo, tag: str):
        self.repo = repo
        self.tag = tag
        self.head_name = f"{REFS}/{tag}/head"
        self.branch = f"autoresearch/{tag}"

    def attempt_name(self, number: int, revision: int = 0) -> str:
        """``0007``, or ``0007.r1`` for an attempt that was put on top of a head that had moved on."""
        return f"{REFS}/{self.tag}/{number:04d}{f'.r{revision}' if revision else ''}"

    def existing(self) -> Iterator[str]:
        """Refs that an earlier run of this tag left."""
        yield from self.repo.refs(f"{REFS}/{self.tag}/")
        if self.repo.ref(f"refs/heads/{self.branch}"):
            yield f"refs/heads/{self.branch}"

    def mirror(self, head: str, known: frozenset[str]) -> str:
        """Bring the branch to ``head``; "" when done, else why it waits.

        ``known`` are the commits that this session put there itself: a branch that stands anywhere else was moved by
        the user, and stays where it is.
        """
        name = f"refs/heads/{self.branch}"
        now = self.repo.ref(name)
        if now == head:
            return ""
        where = self.repo.checked_out(self.branch)
        if where:
            return (
                f"branch {self.branch} is checked out in {where}; it follows once another branch is checked out there"
            )
        if now is not None and now not in known:
            return f"branch {self.branch} was moved to {now[:12]} by hand; it follows once it is deleted or moved back"
        try:
            self.repo.move(name, head, now)
        except RefMoved as error:
            return str(error)
        return ""
