"""Centaur: the points of a model join the samples of CMA-ES, and one acquisition function picks what runs.

CMA-ES learns from every result. On some asks the model sees its state and proposes several points; the best of them and
the best sample compete by expected improvement times success probability. The model's points have a bonus that its
results earn. Paper mode (``share=0.3, screen=False``): the model proposes 30 % of the trials after the tenth, at fixed
intervals, and its one point runs.

Source: Ferreira, Wobbe, Krishnakumar, Hutter and Zela, arXiv 2603.24647.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Literal

import numpy as np

from agent.errors import EnvironmentProblem, ReplyRejected, UsageError
from agent.llm.chat import Chat
from agent.proposers.search.adviser import AVOIDED, Adviser, Conversation, Form, Point
from agent.proposers.search.author import Author, Forecast
from agent.proposers.search.base import NoPoint, Observation, Suggestion, successes
from agent.proposers.search.cma_gp import CmaGp
from agent.proposers.search.failure_model import MODEL
from agent.proposers.search.prompt_tables import progress, state
from agent.proposers.search.surrogate import JUDGED
from agent.space.space import Params, SearchSpace

WARM_UP = 10  # trials of CMA-ES alone with a fixed share, as in the paper
FIRST_TRIALS = 4  # trials of CMA-ES alone with an adaptive share


class Centaur(CmaGp):
    """The model takes part in 4 to 50 % of the asks, by what its points bring.

    Args:
        space, seed, baseline: as ``Method``.
        llm: the model.
        share: fixed share of trials that run a point of the model, 0 to 1; None for the common pool.
        screen: whether a Gaussian process screens the samples and the model's points.
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
            raise UsageError(f"the share of the model must be between 0 and 1, or auto, not {share}")
        super().__init__(space, seed, baseline)
        self.adviser = Adviser(llm, self, reply)
        self.share, self.screen, self.on_failure = share, screen, on_failure
        self.author = Author()

    @property
    def model_share(self) -> float:
        """The probability that the model is asked next, after the first trials."""
        return self.author.share if self.share is None else self.share

    def figures(self) -> dict[str, float]:
        return {**super().figures(), "model_share": round(self.model_share, 6)}

    def models_turn(self, ask: int) -> bool:
        """Whether the model is asked at ask number ``ask``."""
        if self.share is not None:
            late = ask - WARM_UP
            return late >= 0 and math.floor((late + 1) * self.share + 1e-9) > math.floor(late * self.share + 1e-9)
        return ask >= FIRST_TRIALS and bool(self.stream(ask, "turn").random() < self.model_share)

    def propose(self, ask: int) -> Suggestion:
        own = super().propose(ask)
        if not self.models_turn(ask):
            return own
        shown = state(self, own.params)
        if self.screen:
            shown = f"{progress(self, self.surrogate)}\n\n{shown}"
        try:
            talk, points = self.adviser.advise(ask, "centaur", shown, self.failures() if self.screen else None)
        except (ReplyRejected, EnvironmentProblem) as error:
            pooled = self.screen and self.share is None and isinstance(error, NoPoint)
            if self.on_failure != "cma" and not pooled:
                raise
            failed = error if isinstance(error, NoPoint) else NoPoint("")
            reason = f"This was the model's turn, and the model failed: {error}"
            return Suggestion(own.params, own.source, reason, failed.model, failed.transcript, failed.usage)
        return self._pick(own, talk, points) if self.screen else talk.suggestion(*points[0])

    def _pick(self, own: Suggestion, talk: Conversation, points: Sequence[Point]) -> Suggestion:
        """The best of the model's ``points``, or ``own`` if it promises more and the share is not fixed."""
        places = [self.space.to_unit(params) for params in (*(params for params, _ in points), own.params)]
        failures = self.failures()
        success = failures.success_probability(places)
        worth = np.log(np.maximum(success, 1e-12))
        doubtful = success[:-1] < failures.threshold(MODEL)
        worth[:-1] += np.log(self.author.reliability) + self.author.favour - AVOIDED * doubtful
        outlook, improvement = None, np.append(np.zeros(len(points)), -AVOIDED / 2)  # nothing tells the points apart
        if len(successes(self.observations)) >= JUDGED:
            outlook = self.surrogate.outlook(places)
            improvement = outlook.log_improvement(np.append(np.full(len(points), self.author.bonus), 0.0))
        worth += improvement
        if self.share is not None:
            worth[-1] = -np.inf
        best = int(np.argmax(worth))
        if best == len(points):
            reason = "Promises more than the points of the model."
            return replace(talk.suggestion(own.params, reason), source=own.source)
        found = talk.suggestion(*points[best])
        if outlook is None:
            return found
        forecast = Forecast(
            forecast=float(outlook.mean[best]),
            deviation=float(outlook.deviation[best]),
            noise=outlook.process.noise,
            best=outlook.best,
            own=float(np.exp(improvement[-1]) * success[-1]),
            success=float(success[best]),
        )
        return replace(found, search=asdict(forecast))

    def choose(self, fresh: Sequence[Params]) -> tuple[int, str]:
        return super().choose(fresh) if self.screen else (0, "cma")

    def asked(self, suggestion: Suggestion, ask: int) -> None:
        if suggestion.source == "llm":
            return  # its point is injected
        if self.models_turn(ask):
            self.author.asked()
        super().asked(suggestion, ask)

    def replay(self, suggestion: Suggestion | None) -> None:
        super().replay(suggestion)
        if suggestion is None:
            self.author.asked()

    def learn(self, observation: Observation, suggestion: Suggestion | None) -> None:
        if suggestion and suggestion.source == "llm":
            if forecast := Forecast.of(suggestion.search):
                credit = self.author.learn(observation.value, forecast)
            else:
                credit = float(observation is self.best)
                self.author.asked(credit)
            if self.screen and credit <= 0.0:
                return  # CMA-ES would shrink its step around points close to the best that improve nothing
        super().learn(observation, suggestion)
