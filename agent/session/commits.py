"""Commits and refs of a run: every attempt that became code, the accepted edits, and the branch."""

from __future__ import annotations

from dataclasses import dataclass

from agent.ledger.events import Candidate
from agent.ledger.state import State
from agent.proposers.protocol import Proposer
from agent.repo.messages import accepted_message, candidate_message
from agent.repo.refs import RunRefs
from agent.repo.repo import Repo
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
        """Commit a trial's edit on top of ``head``. The same proposal there always has the same hash.

        Raises:
            PatchRejected: the edit does not apply there.
        """
        text, commit, revision = self._edited(record.proposal, head), record.candidate, record.revision
        if commit is None or text != self.read(commit):  # the same program on another head keeps its runs
            revision += commit is not None
            files, date = {self.target.path: text}, int(record.started)
            commit = self.repo.build(head, files, candidate_message(record), date)
        name = self.refs.attempt_name(record.number, revision)
        return Candidate(trial=record.number, commit=commit, ref=name, parent=head)

    def publish(self, candidate: Candidate) -> None:
        """Point the ref of an attempt at its commit."""
        self.repo.move(candidate.ref, candidate.commit, self.repo.ref(candidate.ref))

    def _edited(self, proposal: Proposal, parent: str) -> str:
        from agent.patch.apply import apply_reply

        before = self.read(parent)
        if parent == proposal.parent:
            return apply_reply(before, proposal.diff, self.target.path)
        return self.proposer.rebase(proposal, before, self.target.path)

    def accept(self, record: Record, state: State) -> str:
        """Commit the candidate's tree on top of the head, with its results; return the commit.

        Its date comes from the ledger, so that the same commit can be built again.
        """
        assert record.candidate is not None
        message = accepted_message(record, state)
        tree = self.repo.commit(record.candidate).tree
        commit = self.repo.commit_tree(tree, (state.head,), message, int(record.ended or 0))
        self.move_head(commit)
        return commit

    def move_head(self, commit: str) -> None:
        self.repo.move(self.refs.head_name, commit, self.repo.ref(self.refs.head_name))

    def mirror(self, state: State) -> str:
        """Move the branch to the head; return "", or why the branch has to wait."""
        return self.refs.mirror(state.head, frozenset({state.baseline, *state.moved.values()}))

    def restore(self, state: State) -> None:
        """Create or move the refs that differ from the ledger."""
        attempts = ((self.refs.attempt_name(r.number, r.revision), r.candidate) for r in state.records)
        for name, commit in ((self.refs.head_name, state.head), *attempts):
            if commit and (now := self.repo.ref(name)) != commit:
                self.repo.move(name, commit, now)
