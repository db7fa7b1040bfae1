"""Centaur: a model and CMA-ES take turns, and whoever has lately brought more proposes more often.

After Ferreira, Wobbe, Krishnakumar, Hutter and Zela (arXiv 2603.24647): CMA-ES is told every result; on some trials the
model sees its state and proposes instead. In the paper that is a fixed 30 % of the trials after ten (``share=0.3,
screen=False``). Here the share follows success by default, and CMA-ES's samples are screened as in ``cma-gp``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

from agent.errors import EnvironmentProblem, ReplyRejected, UsageError
from agent.llm.chat import Chat
from agent.proposers.protocol import NoPoint, Suggestion
from agent.proposers.search.adviser import Adviser, Form
from agent.proposers.search.base import Told
from agent.proposers.search.cma_gp import STEP, CmaGp
from agent.proposers.search.prompt_tables import best, bounds, latest, state, table, wording
from agent.space.space import SearchSpace
from agent.types import Value

WARM_UP = 10  # trials of CMA-ES alone with a fixed share, as in the paper
FIRST_TRIALS = 4  # the same with a share that follows success
WINDOW = 25  # trials among which a new result is ranked
FORGET = 0.95  # weight of a result against the next one of the same proposer
PRIOR = {"llm": 0.18, "cma": 0.27}  # success before anything is known: the first share is near the paper's 30 %
PRIOR_WEIGHT = 3.0  # results
LIKELY = 0.5  # probability of not failing below which a point of the model's is doubted, until some have failed
LEAST, MOST = 0.04, 0.5  # bounds of the model's share: neither is ever given up


class Centaur(CmaGp):
    """``centaur``.

    Args:
        llm: the model.
        share: of the trials that are the model's, at fixed intervals; None lets it follow success.
        screen: whether a Gaussian process chooses among CMA-ES's samples.
        reply: the form of the model's answers, ``diff`` or ``json``.
        on_failure: ``raise`` when the model gives no point, or take CMA-ES's own (``cma``), which is labelled so.
    """

    def __init__(
        self,
        space: SearchSpace,
        seed: int = 0,
        baseline: Mapping[str, Value] | None = None,
        *,
        llm: Chat,
        share: float | None = None,
        screen: bool = True,
        reply: Form = "diff",
        on_failure: Literal["raise", "cma"] = "raise",
    ) -> None:
        if share is not None and not 0.0 <= share <= 1.0:
            raise UsageError(f"the share of the model is between 0 and 1, not {share}; or auto")
        super().__init__(space, seed, baseline)
        self.adviser = Adviser(llm, space, reply)
        self.share, self.screen, self.on_failure = share, screen, on_failure
        self._credit = {arm: PRIOR_WEIGHT * prior for arm, prior in PRIOR.items()}
        self._weight = dict.fromkeys(PRIOR, PRIOR_WEIGHT)
        self._lowest = math.inf  # of the values told so far

    @property
    def model_share(self) -> float:
        """The probability that the model proposes next, once the first trials are over."""
        if self.share is not None:
            return self.share
        llm, cma = ((self._credit[arm] / self._weight[arm]) ** 2 for arm in ("llm", "cma"))
        return min(max(llm / (llm + cma), LEAST), MOST)

    def figures(self) -> dict[str, float]:
        return {**super().figures(), "model_share": round(self.model_share, 6)}

    def models_turn(self, ask: int) -> bool:
        if self.share is not None:
            late = ask - WARM_UP
            return late >= 0 and math.floor((late + 1) * self.share + 1e-9) > math.floor(late * self.share + 1e-9)
        return ask >= FIRST_TRIALS and bool(self.stream(ask, "turn").random() < self.model_share)

    def propose(self, ask: int) -> Suggestion:
        own = super().propose(ask)
        if not self.models_turn(ask):
            return own
        try:
            return self._advice(ask, own)
        except (ReplyRejected, EnvironmentProblem) as error:
            if self.on_failure != "cma":
                raise
            talk = error if isinstance(error, NoPoint) else NoPoint("")
            reason = f"This was the model's turn, and it failed: {error}"
            return Suggestion(own.params, own.source, reason, talk.model, talk.transcript, talk.usage)

    def _advice(self, ask: int, own: Suggestion) -> Suggestion:
        top = self.best
        return self.adviser.advise(
            self.stream(ask, "llm"),
            "centaur",
            self.baseline if top is None else top.params,
            self.repeats,
            self.doubt if self.screen else None,
            **wording(self),
            bounds=bounds(self.space),
            state=state(self, own.params),
            best=table(self.space, best(self.told), self.terms),
            latest=latest(self),
        )

    def doubt(self, params: Mapping[str, Value]) -> tuple[float, str]:
        """How likely a configuration of the model's is to work, and if that is too little, so in words.

        What is too little follows from how its configurations fared before.
        """
        failures = self.failures()
        chance = float(failures.chance([self.space.to_unit(params)])[0])
        if chance >= failures.bar(LIKELY, STEP, ("llm",)):
            return chance, ""
        failed = ", ".join(sorted({told.status for told in self.told if told.value is None}))
        return chance, (
            f"by the runs that failed so far ({failed}), a run of this configuration fails with a probability of "
            f"{1 - chance:.0%}; stay further away from what failed, or answer the same again if you are sure"
        )

    def choose(self, fresh: list[Mapping[str, Value]]) -> tuple[int, str]:  # type: ignore[override]
        return super().choose(fresh) if self.screen else (0, "cma")

    def asked(self, suggestion: Suggestion, ask: int) -> None:
        if suggestion.source != "llm":  # a point of the model's is told as one from elsewhere
            super().asked(suggestion, ask)

    def replay(self, suggestion: Suggestion | None) -> None:
        super().replay(suggestion)
        if suggestion is None:
            self._reward("llm", 0.0)

    def learn(self, told: Told) -> None:
        if told.source:
            self._reward("llm" if told.source == "llm" else "cma", self._success(told))
        self._lowest = min(self._lowest, math.inf if told.value is None else told.value)
        super().learn(told)

    def _reward(self, arm: str, success: float) -> None:
        self._credit[arm] = FORGET * self._credit[arm] + success
        self._weight[arm] = FORGET * self._weight[arm] + 1.0

    def _success(self, told: Told) -> float:
        """Half for being among the best fifth of the latest results, half for being the best so far."""
        if told.value is None:
            return 0.0
        recent = self.told[-WINDOW - 1 : -1]
        better = sum(1 for t in recent if t.value is not None and t.value < told.value)
        return 0.5 * (better < max(1, len(recent) // 5)) + 0.5 * (told.value < self._lowest)
