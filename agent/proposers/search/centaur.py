"""Centaur: a model and CMA-ES propose in turn, each as often as its recent results justify.

CMA-ES learns from every result; on some trials the model sees the state of CMA-ES and proposes instead. By default a
bandit sets the model's share from the recent credit of both, and CMA-ES samples are screened as in ``cma-gp``. Paper
mode (``share=0.3, screen=False``): the model proposes 30 % of the trials after the tenth, at fixed intervals.

Source: Ferreira, Wobbe, Krishnakumar, Hutter and Zela, arXiv 2603.24647.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from agent.errors import EnvironmentProblem, ReplyRejected, UsageError
from agent.llm.chat import Chat
from agent.proposers.search.adviser import Adviser, Form
from agent.proposers.search.base import NoPoint, Observation, Suggestion, loss
from agent.proposers.search.cma_gp import CmaGp
from agent.proposers.search.prompt_tables import state
from agent.space.space import Params, SearchSpace

WARM_UP = 10  # trials of CMA-ES alone with a fixed share, as in the paper
FIRST_TRIALS = 4  # trials of CMA-ES alone with an adaptive share
WINDOW = 25  # latest trials among which a new result is ranked
DISCOUNT = 0.95  # weight of a result relative to the next one of the same arm
PRIOR = {"llm": 0.18, "cma": 0.27}  # prior credit of the two arms: the first share is near the paper's 30 %
PRIOR_WEIGHT = 3.0  # results that the prior counts for
LEAST, MOST = 0.04, 0.5  # bounds of the model's adaptive share
DOUBT_BELOW = 0.5  # success probability below which an answer is doubted, before any failed
DOUBT_STEP = 1.0  # log-odds by which a failed answer raises that probability


class Centaur(CmaGp):
    """The share of each proposer follows its credit, between 4 and 50 % for the model.

    Args:
        space, seed, baseline: as ``Method``.
        llm: the model.
        share: fixed share of the model's trials, 0 to 1; None for the adaptive share.
        screen: whether a Gaussian process screens the CMA-ES samples.
        reply: form of the model's answers, ``diff`` or ``json``.
        on_failure: ``raise`` if the model gives no configuration, or take the CMA-ES sample (``cma``) and label it so.
    """

    def __init__(
        self,
        space: SearchSpace,
        seed: int = 0,
        baseline: Params | None = None,
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
        self.adviser = Adviser(llm, self, reply)
        self.share, self.screen, self.on_failure = share, screen, on_failure
        self._credit = {arm: PRIOR_WEIGHT * prior for arm, prior in PRIOR.items()}  # discounted sums of rewards
        self._weight = dict.fromkeys(PRIOR, PRIOR_WEIGHT)  # discounted numbers of results
        self._lowest = math.inf  # smallest value so far

    @property
    def model_share(self) -> float:
        """The probability that the model proposes next, after the first trials."""
        if self.share is not None:
            return self.share
        llm, cma = ((self._credit[arm] / self._weight[arm]) ** 2 for arm in ("llm", "cma"))
        return min(max(llm / (llm + cma), LEAST), MOST)

    def figures(self) -> dict[str, float]:
        return {**super().figures(), "model_share": round(self.model_share, 6)}

    def models_turn(self, ask: int) -> bool:
        """Whether the model proposes at ask number ``ask``."""
        if self.share is not None:
            late = ask - WARM_UP
            return late >= 0 and math.floor((late + 1) * self.share + 1e-9) > math.floor(late * self.share + 1e-9)
        return ask >= FIRST_TRIALS and bool(self.stream(ask, "turn").random() < self.model_share)

    def propose(self, ask: int) -> Suggestion:
        own = super().propose(ask)
        if not self.models_turn(ask):
            return own
        try:
            return self.adviser.advise(
                ask, "centaur", self.doubt if self.screen else None, state=state(self, own.params)
            )
        except (ReplyRejected, EnvironmentProblem) as error:
            if self.on_failure != "cma":
                raise
            talk = error if isinstance(error, NoPoint) else NoPoint("")
            reason = f"This was the model's turn, and the model failed: {error}"
            return Suggestion(own.params, own.source, reason, talk.model, talk.transcript, talk.usage)

    def doubt(self, params: Params) -> tuple[float, str]:
        """The success probability of an answer, and the objection if it is below the threshold of the model."""
        failures = self.failures()
        success = float(failures.success_probability([self.space.to_unit(params)])[0])
        if success >= failures.threshold(DOUBT_BELOW, DOUBT_STEP, ("llm",)):
            return success, ""
        failed = ", ".join(sorted({o.status for o in self.observations if o.value is None}))
        return success, (
            f"by the runs that failed so far ({failed}), a run of this configuration fails with a probability of "
            f"{1 - success:.0%}; stay further away from what failed, or answer the same again if you are sure"
        )

    def choose(self, fresh: Sequence[Params]) -> tuple[int, str]:
        return super().choose(fresh) if self.screen else (0, "cma")

    def asked(self, suggestion: Suggestion, ask: int) -> None:
        if suggestion.source != "llm":  # an answer of the model is injected
            super().asked(suggestion, ask)

    def replay(self, suggestion: Suggestion | None) -> None:
        super().replay(suggestion)
        if suggestion is None:
            self._reward("llm", 0.0)

    def learn(self, observation: Observation) -> None:
        if observation.source:
            arm = "llm" if observation.source == "llm" else "cma"
            self._reward(arm, self._success(observation))
        self._lowest = min(self._lowest, loss(observation))
        super().learn(observation)

    def _reward(self, arm: str, reward: float) -> None:
        self._credit[arm] = DISCOUNT * self._credit[arm] + reward
        self._weight[arm] = DISCOUNT * self._weight[arm] + 1.0

    def _success(self, observation: Observation) -> float:
        """Reward: 0.5 for the best fifth of the latest results, and 0.5 for the best result so far."""
        value = loss(observation)
        recent = self.observations[-WINDOW - 1 : -1]
        better = sum(loss(o) < value for o in recent)
        return 0.5 * (better < max(1, len(recent) // 5)) + 0.5 * (value < self._lowest) if value < math.inf else 0.0
