"""``PlateauHandOver``: CMA-ES proposes some trials while the code proposer is on a plateau.

The state follows from the history alone. CMA-ES starts at the block values of the present branch and keeps the model's
other edits.
"""

from __future__ import annotations

from pathlib import Path

from agent.errors import SearchExhausted, UsageError
from agent.proposers.block import BlockProposer, minimised_value
from agent.proposers.protocol import PLATEAU, AroundCode, Context, Proposer
from agent.proposers.search.base import Suggestion
from agent.proposers.search.cma import CmaEs
from agent.space.space import SearchSpace
from agent.types import Goal, Proposal

SOURCE = "cma"


class PlateauHandOver(AroundCode):
    """A ``Proposer``: edits of ``code``, but ``trials`` trials of CMA-ES after every ``PLATEAU`` trials without a keep.

    ``target_toml`` is the file with the bounds.
    """

    def __init__(self, code: Proposer, target_toml: Path, goal: Goal, trials: int, name: str = "code") -> None:
        super().__init__(code)
        self.target_toml, self.goal = target_toml, goal
        self.trials, self.name = trials, name

    def ask(self, context: Context) -> Proposal:
        if context.failed is None and self.searches(context.plateau):
            try:
                return search_from(context, self.target_toml, self.goal, self.name).ask(context)
            except (UsageError, SearchExhausted):  # the model removed the block, or no configuration is left
                pass
        return self.code.ask(context)

    def searches(self, since_keep: int) -> bool:
        """Whether CMA-ES proposes the next trial, by the number of trials since the last keep."""
        return since_keep >= PLATEAU and (since_keep - PLATEAU) % (PLATEAU + self.trials) < self.trials


def search_from(context: Context, target_toml: Path, goal: Goal, name: str) -> BlockProposer:
    """CMA-ES over the block of the present file, with the results of its trials since the last keep."""
    space = SearchSpace.from_toml(target_toml, source=context.source)
    method = CmaEs(space, seed=context.seed, baseline=space.read(context.source))
    for record in context.history[len(context.history) - context.plateau :]:
        params = record.proposal.params
        if record.proposal.source == SOURCE and params is not None:
            method.replay(Suggestion(dict(params), SOURCE))
            value = minimised_value(record, goal)
            method.tell(dict(params), value, status=record.status if value is None else "ok")
    return BlockProposer(name, method, space, goal)
