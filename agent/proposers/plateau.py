"""Hands a few trials to CMA-ES when a model has been without success for long, and then the word back to the model.

Nothing is remembered: whose turn it is, and what CMA-ES has seen of this plateau, follow from the history. The search
begins at the values that the branch has now; what the model changed elsewhere in the file stays as it is.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from agent.errors import UsageError
from agent.ledger.events import Event
from agent.proposers.block import BlockProposer, told_value
from agent.proposers.protocol import Context, Proposer, Suggestion
from agent.proposers.search.cma import CmaEs
from agent.space.space import SearchSpace
from agent.types import Goal, Proposal, Record

SOURCE = "cma"


class PlateauHandOver:
    """A code proposer whose plateaus CMA-ES searches: ``trials`` trials after ``after`` attempts without a keep."""

    name = "code"

    def __init__(self, code: Proposer, target_toml: Path, goal: Goal, trials: int, after: int = 8) -> None:
        self.code, self.target_toml, self.goal = code, target_toml, goal
        self.trials, self.after = trials, after

    def ask(self, context: Context) -> Proposal:
        if self.searches(context.plateau):
            try:
                return self._search(context).ask(context)
            except UsageError:  # the model has changed the block: there is nothing to search over
                pass
        return self.code.ask(context)

    def rebase(self, proposal: Proposal, source: str, path: str) -> str:
        return self.code.rebase(proposal, source, path)

    def tell(self, record: Record) -> None:
        self.code.tell(record)

    def replay(self, events: Iterable[Event]) -> None:
        self.code.replay(events)

    def searches(self, since_keep: int) -> bool:
        """Whether the next trial is CMA-ES's: ``trials`` times after every ``after`` trials of the model."""
        return since_keep >= self.after and (since_keep - self.after) % (self.after + self.trials) < self.trials

    def _search(self, context: Context) -> BlockProposer:
        space = SearchSpace.from_toml(self.target_toml, source=context.source)
        method = CmaEs(space, seed=context.seed, baseline=space.read(context.source))
        plateau = context.history[len(context.history) - context.plateau :]
        for record in plateau:
            params = record.proposal.params
            if record.proposal.source == SOURCE and params is not None:
                method.replay(Suggestion(dict(params), SOURCE))
                method.tell(dict(params), told_value(record, self.goal), status=record.status)
        return BlockProposer(self.name, method, space, self.goal)
