"""The commits of a run and their refs: every attempt that became code, the accepted edits, and the branch.

The ledger says what there should be; here it is made, and made again where a kill or a person took it away.
"""

from __future__ import annotations

from dataclasses import dataclass

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

    # attempts

    def build(self, record: Record, head: str) -> str:
        """A trial's edit on top of ``head``; the same proposal there always gives the same hash.

        Raises:
            PatchRejected: the edit does not apply there.
        """
        return self._commit(record, self._edited(record.proposal, head), head)

    def rebase(self, record: Record, head: str) -> tuple[str, int]:
        """The same on top of a head that has moved on since the trial was begun: the commit, and its revision."""
        assert record.candidate is not None
        text = self._edited(record.proposal, head)
        if text == self.repo.read(record.candidate, self.target.path):  # the same program: its runs count
            return record.candidate, record.revision
        return self._commit(record, text, head), record.revision + 1

    def set_ref(self, record: Record, commit: str, revision: int) -> str:
        """Point the attempt's ref at its commit, and return the name."""
        name = self.refs.attempt_name(record.number, revision)
        self.repo.move(name, commit, self.repo.ref(name))
        return name

    def _commit(self, record: Record, text: str, parent: str) -> str:
        return self.repo.build(parent, {self.target.path: text}, candidate_message(record), int(record.started))

    def _edited(self, proposal: Proposal, parent: str) -> str:
        from agent.patch.apply import apply_reply

        before = self.repo.read(parent, self.target.path)
        if parent == proposal.parent:
            return apply_reply(before, proposal.diff, self.target.path)
        return self.proposer.rebase(proposal, before, self.target.path)

    # what is accepted

    def accept(self, record: Record, state: State) -> str:
        """The candidate's tree again, on top of the head, with its results; dated by the ledger: it can be rebuilt."""
        assert record.candidate is not None
        message = accepted_message(record, state)
        tree = self.repo.commit(record.candidate).tree
        commit = self.repo.commit_tree(tree, (state.head,), message, int(record.ended or 0))
        self.move_head(commit)
        return commit

    def move_head(self, commit: str) -> None:
        self.repo.move(self.refs.head_name, commit, self.repo.ref(self.refs.head_name))

    def mirror(self, state: State) -> str:
        """Bring the branch to the head; "" when done, else why it waits."""
        return self.refs.mirror(state.head, frozenset({state.baseline, *state.moved.values()}))

    def restore(self, state: State) -> None:
        """Refs that were deleted or lag behind come back from the ledger: it is the truth, they are its mirror."""
        attempts = ((self.refs.attempt_name(r.number, r.revision), r.candidate) for r in state.records)
        for name, commit in ((self.refs.head_name, state.head), *attempts):
            if commit and (now := self.repo.ref(name)) != commit:
                self.repo.move(name, commit, now)
