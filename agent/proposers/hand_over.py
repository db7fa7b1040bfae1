"""Another method proposes some trials of the code proposer: on a plateau, or where the model's answers are a loop.

Which trials these are, and the state of the other method, follow from the Context alone.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from agent.errors import SearchExhausted, UsageError
from agent.proposers.block import BlockProposer
from agent.proposers.protocol import PLATEAU, Context, Proposer
from agent.proposers.search.base import Suggestion
from agent.space.space import SearchSpace
from agent.types import Goal, Proposal

SOURCE = "cma"


@dataclass(frozen=True)
class PlateauHandOver(Proposer):
    """A ``Proposer``: after every ``PLATEAU`` trials of ``code`` without a keep, ``trials`` trials of ``other``.

    ``other`` makes the other method for a context, since it starts at the present file.
    """

    code: Proposer
    other: Callable[[Context], Proposer]
    trials: int

    def ask(self, context: Context) -> Proposal:
        since = context.plateau - PLATEAU
        if context.failed is None and since >= 0 and since % (PLATEAU + self.trials) < self.trials:
            with suppress(UsageError, SearchExhausted):  # the model removed the block, or no configuration is left
                return self.other(context).ask(context)
        return self.code.ask(context)


@dataclass(frozen=True)
class StandIn(Proposer):
    """A ``Proposer``: edits of ``code``; where its answers are a loop, an edit of ``other`` in their place.

    The proposal then has the other method's ``source``, and in ``loop`` the reason. Without another edit, the model's
    proposal stays.
    """

    code: Proposer
    other: Callable[[Context], Proposer]

    def ask(self, context: Context) -> Proposal:
        proposal = self.code.ask(context)
        if not proposal.loop or proposal.ending is None or context.failed is not None:  # a repair stays with the model
            return proposal
        try:
            edit = self.other(context).ask(context)
        except (SearchExhausted, UsageError) as problem:
            return replace(proposal, reason=f"{proposal.reason}; no other edit: {problem}")
        if edit.ending is not None:
            return proposal
        answered = {name: getattr(proposal, name) for name in ("model", "transcript", "usage", "answers", "loop")}
        return replace(edit, **answered)


def search_from(context: Context, target_toml: Path, goal: Goal, name: str) -> BlockProposer:
    """CMA-ES from the block values of the present file, with the results of its trials since the last keep."""
    from agent.proposers.search.cma import CmaEs  # loads scipy

    space = SearchSpace.from_toml(target_toml, source=context.source)
    method = CmaEs(space, seed=context.seed, baseline=space.read(context.source))
    proposer = BlockProposer(name, method, space, goal)
    for record in context.history[len(context.history) - context.plateau :]:
        if record.proposal.source == SOURCE and record.proposal.params is not None:
            method.replay(Suggestion(dict(record.proposal.params), SOURCE))
            proposer.tell(record)
    return proposer
