"""``AroundCode``: the base of proposers that let another method take some trials of the code proposer."""

from __future__ import annotations

from collections.abc import Iterable

from agent.ledger.events import Event
from agent.proposers.protocol import Proposer
from agent.types import Proposal, Record


class AroundCode:
    """Leaves outcomes, rebases and the replay of a ledger to ``code``; a subclass adds ``ask``."""

    def __init__(self, code: Proposer) -> None:
        self.code = code

    def tell(self, record: Record) -> None:
        self.code.tell(record)

    def rebase(self, proposal: Proposal, source: str, path: str) -> str:
        return self.code.rebase(proposal, source, path)

    def replay(self, events: Iterable[Event]) -> None:
        self.code.replay(events)
