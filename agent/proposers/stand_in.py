"""``StandIn``: another method proposes a trial for which the model's answers were a loop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from agent.errors import SearchExhausted, UsageError
from agent.proposers.protocol import AroundCode, Context, Proposer
from agent.types import Proposal


class StandIn(AroundCode):
    """A ``Proposer``: edits of ``code``; where its answers are a loop, an edit of another method in their place.

    The proposal then has the other method's ``source``, and in ``loop`` the reason. Without another edit, the model's
    proposal stays.

    Args:
        other: makes the other method for a context, since its start is the present file.
    """

    def __init__(self, code: Proposer, other: Callable[[Context], Proposer]) -> None:
        super().__init__(code)
        self.other = other

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
