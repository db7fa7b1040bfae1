"""A model alone: it sees what was tried and proposes the next values of the block."""

from __future__ import annotations

from collections.abc import Mapping

from agent.llm.chat import Chat
from agent.proposers.protocol import Suggestion
from agent.proposers.search.adviser import Adviser, Form
from agent.proposers.search.base import Method
from agent.proposers.search.prompt_tables import best, bounds, latest, table, wording
from agent.space.space import SearchSpace
from agent.types import Value


class Hparams(Method):
    """``hparams``. ``reply`` is the form of the answer: a ``diff`` of the block, or ``json``."""

    source = "llm"

    def __init__(
        self,
        space: SearchSpace,
        seed: int = 0,
        baseline: Mapping[str, Value] | None = None,
        *,
        llm: Chat,
        reply: Form = "diff",
    ) -> None:
        super().__init__(space, seed, baseline)
        self.adviser = Adviser(llm, space, reply)

    def propose(self, ask: int) -> Suggestion:
        top = self.best
        return self.adviser.advise(
            self.stream(ask, "llm"),
            "hparams",
            self.baseline if top is None else top.params,
            self.repeats,
            **wording(self),
            bounds=bounds(self.space),
            best=table(self.space, best(self.told), self.terms),
            latest=latest(self),
        )
