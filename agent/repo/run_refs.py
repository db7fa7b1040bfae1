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

        No advice here deletes a ref: it may hold work of the user.
        """
        branch = f"refs/heads/{self.branch}"
        old = next(iter(self.repo.refs.below(f"{REFS}/{self.tag}/")), branch if self.repo.refs.get(branch) else "")
        if old:
            kind = "a branch" if old == branch else "a ref"
            return f"{old} exists: {kind} of an earlier session or of yours. Choose another --tag; nothing is deleted."
        if self.repo.refs.get("refs/heads/autoresearch"):
            return (
                f"the branch autoresearch exists, so git cannot create {self.branch}. Rename the branch: "
                f"git branch -m autoresearch NEW-NAME"
            )
        for name in (REFS, f"{REFS}/{self.tag}"):
            if self.repo.refs.get(name):
                return f"the ref {name} exists, so git cannot create refs below it. Choose another --tag or rename it."
        if below := next(iter(self.repo.refs.below(f"{branch}/")), ""):
            return f"{below} exists, so git cannot create the branch {self.branch}. Choose another --tag."
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
