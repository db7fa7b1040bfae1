"""The texts of a stacked session: which edits fit together, and the commits that carry them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

from agent.ledger.events import Candidate
from agent.ledger.state import State
from agent.patch.stack import Change, stack
from agent.session.commits import Commits
from agent.types import Record


@dataclass(frozen=True)
class StackedEdits:
    """Merges edits by their content. The kept edits are the tree of the incumbent."""

    commits: Commits
    _texts: dict[str, str] = field(default_factory=dict)  # by commit
    _merged: dict[tuple[str, ...], str | None] = field(default_factory=dict)  # by commits of kept and other edits

    def merge(self, state: State, trials: Collection[int]) -> str | None:
        """The file with the kept edits and those of ``trials``; None if they do not fit together."""
        records = [state.records[trial - 1] for trial in sorted(trials)]
        key = (state.incumbent, *(record.candidate or "" for record in records))
        if key not in self._merged:
            changes = [Change(self._read(record.parent), self._read(record.candidate or "")) for record in records]
            self._merged[key] = stack(self._read(state.incumbent), changes)
        return self._merged[key]

    def parents(self, trial: int, state: State, others: Iterable[int]) -> tuple[int, ...] | None:
        """Undecided edits that an edit builds on: none, one, or all earlier ones; None if it fits nowhere."""
        earlier = tuple(other for other in others if other < trial)
        for tried in ((), *((other,) for other in reversed(earlier)), earlier):
            if self.merge(state, {*tried, trial}) is not None:
                return tried
        return None

    def combine(
        self, state: State, first: Sequence[int], others: Sequence[int], undecided: Collection[int]
    ) -> tuple[int, ...]:
        """As many edits as fit together on the kept ones, in the order of their trials.

        Args:
            state: With the kept edits.
            first: Edits that come before ``others``; of rivals, the first stays.
            others: Further edits, the most wanted first.
            undecided: All undecided edits, among which the parents are.
        """
        inside = {*first, *others}
        if self.merge(state, inside) is None:
            inside = set()
            for trial in (*first, *others):
                wanted = {*inside, trial, *(self.parents(trial, state, undecided) or ())}
                if self.merge(state, wanted) is not None:
                    inside = wanted
        return tuple(sorted(inside))

    def build(self, trials: Sequence[int], state: State, name: str) -> str:
        """Commit edits on top of the kept ones, and point the ref ``name`` at it. Equal edits have equal hashes."""
        commit = state.incumbent
        if trials:
            text, numbers = self.merge(state, trials), ", ".join(map(str, trials))
            assert text is not None
            message = f"Carry the edits of trials {numbers}\n\nTrials: {numbers}\n"
            files = {self.commits.target.path: text}
            commit = self.commits.repo.build(commit, files, message, int(state.session.began or 0))
        self.commits.repo.refs.point(name, commit)
        return commit

    def on_kept(self, record: Record, state: State) -> Candidate | None:
        """The commit of an edit on top of the kept ones alone; None if its candidate is that already."""
        text = self.merge(state, {record.number})
        assert text is not None
        if record.base == state.incumbent and text == self._read(record.candidate or ""):
            return None
        commit = self.commits.commit_candidate(record, state.incumbent, text)
        return self.commits.candidate(record, commit, record.revision + (commit != record.candidate), state.incumbent)

    def _read(self, commit: str) -> str:
        if commit not in self._texts:
            self._texts[commit] = self.commits.read(commit)
        return self._texts[commit]
