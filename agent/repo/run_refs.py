"""The refs of one run below refs/autoresearch/<tag>/, and the branch that mirrors its head."""

from __future__ import annotations

from agent.repo.refs import RefMoved
from agent.repo.repo import Repo
from agent.repo.worktree import checked_out

REFS = "refs/autoresearch"


class RunRefs:
    """Names and moves of a run's refs: every attempt, the accepted head, the published branch."""

    def __init__(self, repo: Repo, tag: str):
        self.repo = repo
        self.tag = tag
        self.head_name = f"{REFS}/{tag}/head"
        self.work_name = f"{REFS}/{tag}/work"  # policy stacked: the head, and edits that are likely gains
        self.branch = f"autoresearch/{tag}"

    def attempt_name(self, number: int, revision: int = 0) -> str:
        """``0007``, or ``0007.r1`` for an attempt that was rebased onto a newer head."""
        return f"{REFS}/{self.tag}/{number:04d}{f'.r{revision}' if revision else ''}"

    def stack_name(self, number: int) -> str:
        """The commit of a run that carries several edits."""
        return f"{REFS}/{self.tag}/stack/{number:04d}"

    def obstacle(self) -> str:
        """Why git could not create the refs of this run beside those of the repository, and the way out; "" if it can.

        Git cannot keep a ref beside a longer one that starts with its name. No advice here deletes a ref: it may hold
        work of the user.
        """
        refs = self.repo.refs
        for name in (f"{REFS}/{self.tag}", f"refs/heads/{self.branch}"):
            if old := name if refs.get(name) else next(iter(refs.below(f"{name}/")), ""):
                return f"{old} exists: it is of an earlier session or yours. Choose another --tag; nothing is deleted."
            if refs.get(above := name.rpartition("/")[0]):
                branch = above.removeprefix("refs/heads/")
                advice = f": git branch -m {branch} NEW-NAME" if branch != above else " with git update-ref"
                return f"{above} exists, so git cannot create {name}. Rename it{advice}."
        return ""

    def waits(self, head: str, known: frozenset[str]) -> str:
        """Why the branch cannot follow ``head``; "" if it is there or can. Arguments: see ``mirror``."""
        now = self.repo.refs.get(f"refs/heads/{self.branch}")
        if now == head:
            return ""
        if where := checked_out(self.repo, self.branch):
            return f"branch {self.branch} is checked out in {where}; it moves once another branch is checked out there"
        if now is not None and now not in known:
            return f"branch {self.branch} was moved to {now[:12]} by hand; once you rename it, the run makes a new one"
        return ""

    def mirror(self, head: str, known: frozenset[str]) -> str:
        """Move the branch to ``head``.

        Args:
            known: commits that this session put on the branch. A branch at any other commit was moved by the user and
                stays there.

        Returns:
            "" when done, else why the branch waits.
        """
        if why := self.waits(head, known):
            return why
        try:
            self.repo.refs.point(f"refs/heads/{self.branch}", head)
        except RefMoved as error:
            return str(error)
        return ""
