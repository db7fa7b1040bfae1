"""Commits and refs of a session: every edit that became code, the accepted edits, and the branch."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

from agent.errors import PatchRejected
from agent.ledger.events import Candidate
from agent.ledger.state import State
from agent.patch.apply import apply_reply
from agent.proposers.protocol import Proposer
from agent.repo.messages import accepted_message, candidate_message
from agent.repo.repo import Repo
from agent.repo.run_refs import RunRefs
from agent.target import Target
from agent.types import Proposal, Record


@dataclass(frozen=True)
class Commits:
    repo: Repo
    refs: RunRefs
    target: Target
    proposer: Proposer

    def read(self, commit: str) -> str:
        """The edited file at a commit."""
        return self.repo.read(commit, self.target.path)

    def build(self, record: Record, head: str) -> Candidate:
        """Commit a trial's edit on top of ``head``, with a ref. The same proposal there always has the same hash.

        Raises:
            PatchRejected: the edit does not apply there.
        """
        text, commit, revision = self._edited(record.proposal, head), record.candidate, record.revision
        if commit is None or text != self.read(commit):  # the same program on another head keeps its runs
            revision += commit is not None
            commit = self.commit_candidate(record, head, text)
        return self.candidate(record, commit, revision, head)

    def candidate(self, record: Record, commit: str, revision: int, head: str) -> Candidate:
        """Point the ref of an attempt at its commit, which lies on top of ``head``."""
        name = self.refs.attempt_name(record.number, revision)
        self.repo.refs.point(name, commit)
        return Candidate(trial=record.number, commit=commit, ref=name, parent=head)

    def _edited(self, proposal: Proposal, parent: str) -> str:
        before = self.read(parent)
        if parent == proposal.parent:
            return apply_reply(before, proposal.diff, self.target.path)
        return self.proposer.rebase(proposal, before, self.target.path)

    def accept(self, record: Record, state: State) -> str:
        """Commit the candidate's tree on top of the head, with its results; return the commit.

        Its date comes from the ledger, so that the same commit can be built again.
        """
        commit = self.commit_accepted(record, state, state.head)
        self.move_head(commit)
        return commit

    def commit_candidate(self, record: Record, head: str, text: str) -> str:
        """Commit the file ``text`` as the edit of a trial on top of ``head``; no ref moves."""
        return self.repo.build(head, {self.target.path: text}, candidate_message(record), int(record.started))

    def commit_accepted(self, record: Record, state: State, head: str) -> str:
        """Commit the candidate's tree on top of ``head``, with its results; no ref moves."""
        assert record.candidate is not None
        message = accepted_message(record, state)
        tree = self.repo.commit(record.candidate).tree
        return self.repo.commit_tree(tree, (head,), message, int(record.ended or 0))

    def move_head(self, commit: str) -> None:
        self.repo.refs.point(self.refs.head_name, commit)

    def mirror(self, state: State) -> str:
        """Move the branch to the head; return "", or why the branch has to wait."""
        return self.refs.mirror(state.head, state.on_branch)

    def restore(self, state: State) -> str:
        """Build the commits that git has pruned again, and create or move the refs that differ from the ledger.

        Returns:
            "", or the attempts whose commits are lost.

        Raises:
            UsageError: a commit that the session needs is lost.
        """
        lost = self._rebuild(state)
        attempts = [(self.refs.attempt_name(r.number, r.revision), r.candidate) for r in state.records]
        for name, commit in ((self.refs.head_name, state.head), *attempts):
            if commit and commit not in lost:
                self.repo.refs.point(name, commit)
        numbers = ", ".join(str(r.number) for r in state.records if r.candidate in lost)
        return f"commits of attempts {numbers} were pruned from git and could not be built again" if lost else ""

    def _rebuild(self, state: State) -> set[str]:
        """Build missing commits again, with the same hashes; return those that are lost and not needed."""
        needed = [state.baseline]
        self.repo.need(needed, self.refs.tag)
        for number, accepted in state.moved.items():
            record, head = state.records[number - 1], needed[-1]
            if not self.repo.holds(accepted):
                self._build_again(record, needed)
                self.repo.need([record.candidate or ""], self.refs.tag)
                self.commit_accepted(record, state, head)
            needed.append(accepted)
        for record in state.records:
            self._build_again(record, needed)
        waiting = (*state.open_records, *(record for record in state.kept if record.accepted is None))
        needed += [state.incumbent, *(record.candidate for record in waiting if record.candidate)]
        self.repo.need(needed, self.refs.tag)
        return {
            record.candidate for record in state.records if record.candidate and not self.repo.holds(record.candidate)
        }

    def _build_again(self, record: Record, heads: list[str]) -> None:
        """Try every head: a rebase that left the program unchanged kept the commit on an earlier head."""
        for head in dict.fromkeys((record.parent, record.proposal.parent, *heads)):
            if record.candidate is None or self.repo.holds(record.candidate):
                return
            with contextlib.suppress(PatchRejected):
                if self.repo.holds(head):
                    self.commit_candidate(record, head, self._edited(record.proposal, head))
