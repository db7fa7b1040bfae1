"""LLAMBO: Bayesian optimisation with a model as sampler and surrogate.

The model first proposes candidates for a target slightly better than the best value. It then predicts the result of
each candidate from the observations in random order. ``llambo`` predicts values and evaluates the candidate with the
largest expected improvement. ``llambo-optuna`` is the OptunaHub variant in the Centaur paper: it predicts good or bad,
draws categories at random, and hides failures.

Source: Liu, Astorga, Seedat and van der Schaar (2024), arXiv 2402.03921; the target is s_min − α (s_max − s_min).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from agent.errors import ReplyRejected
from agent.llm.chat import Chat
from agent.llm.prompts import fill
from agent.proposers.search.adviser import Conversation, new_points, readable
from agent.proposers.search.answer_forms import closed_object, parse_object, point_schema, read_object
from agent.proposers.search.base import Method, Observation, Suggestion, best_and_latest, loss, successes
from agent.proposers.search.gp import Array, log_expected_improvement
from agent.proposers.search.prompt_tables import bounds, row, table
from agent.space.space import Params, SearchSpace
from agent.types import Value

FIRST = 5  # uniform points before the model is asked
CANDIDATES = 10
PREDICTIONS = 5
SHOWN = 60  # observations in a prompt: the best half and the latest
ALPHA = 0.1  # distance of the target below the best value, in units of the range of values
DRAWS = 50  # of the categories, until the configuration is new
GOOD = 0.25  # share of the results that count as good


class Llambo(Method):
    """Predicts values, proposes all parameters, shows failures."""

    source = "llm"
    failures_shown = True
    prediction = "number"  # JSON type of a prediction
    predictions = "numbers"  # the same in words

    def __init__(self, space: SearchSpace, seed: int = 0, baseline: Params | None = None, *, llm: Chat) -> None:
        super().__init__(space, seed, baseline)
        self.llm = llm

    def propose(self, ask: int) -> Suggestion:
        random, good = self.stream(ask), successes(self.observations)
        if len(good) < min(FIRST, self.space.dimensions):
            draw = lambda: self.space.from_unit(random.random(self.space.dimensions))  # noqa: E731
            return Suggestion(self.unseen(draw, ask), "random", "The first points are uniform.")
        talk = Conversation(self.llm, self.stream(ask, "llm"))
        known = best_and_latest(self.observations if self.failures_shown else good, SHOWN)
        history = self.labelled([known[i] for i in random.permutation(len(known))])
        candidates = self._candidates(talk, history, random)
        if len(candidates) == 1:
            return talk.suggestion(candidates[0], "The only new candidate.")
        index, rationale = self.pick(self._predictions(talk, history, candidates))
        return talk.suggestion(candidates[index], rationale)

    def _candidates(self, talk: Conversation, history: str, random: np.random.Generator) -> list[dict[str, Value]]:
        """New configurations that the model proposes."""
        prompt = fill(
            "llambo",
            bounds=bounds(self.space),
            history=history,
            target=self.target(),
            label=self.label(),
            notes=self.terms.variables["notes"],
            names=", ".join(self.space.names),
        )
        form = {"n": CANDIDATES, "schema": point_schema(self.space, rationale=False)}

        def read(text: str) -> tuple[dict[str, Value], str]:
            return self.complete(read_object(self.space, text)[0], random), ""

        found = talk.until_accepted(prompt, form, lambda reply: new_points(self, reply, read))
        return [params for params, _ in found.values()]

    def _predictions(self, talk: Conversation, history: str, candidates: Sequence[Params]) -> Array:
        """Predictions [answers, candidates]."""
        count = len(candidates)
        prompt = fill(
            "llambo-score",
            history=history,
            candidates="\n".join(f"{i}. |{row(self.space, params)}" for i, params in enumerate(candidates, 1)),
            label=self.label(),
            count=count,
            form=f'the key "predictions" with a list of {self.predictions}',
        )
        values = {"type": "array", "items": {"type": self.prediction}, "minItems": count, "maxItems": count}
        form = {"n": PREDICTIONS, "schema": closed_object({"predictions": values})}

        def read(text: str) -> list[float]:
            values = parse_object(text).get("predictions")
            good = isinstance(values, list) and all(isinstance(v, (int, float)) and math.isfinite(v) for v in values)
            if not values or not good or len(values) != count:
                raise ReplyRejected(f'"predictions" is not a list of {count} values')
            return [float(v) for v in values]

        return np.array(talk.until_accepted(prompt, form, lambda reply: readable(reply, read)))

    # --- what the variants override ---------------------------------------------------------------------------------

    def label(self) -> str:
        return "{metric}, {better}".format_map(self.terms.variables)

    def target(self) -> str:
        values = [loss(o) for o in successes(self.observations)]
        aim = min(values) - ALPHA * (max(values) - min(values))
        return f"a {self.terms.metric} of {self.terms.shown(aim):.5f}"

    def labelled(self, observations: Sequence[Observation]) -> str:
        return table(self.space, observations, self.terms)

    def complete(self, params: dict[str, Value], random: np.random.Generator) -> dict[str, Value]:
        return params

    def pick(self, scores: Array) -> tuple[int, str]:
        """Index of the candidate with the largest expected improvement, by ``scores`` [predictions, candidates]."""
        shown, deviation = scores.mean(axis=0), np.maximum(scores.std(axis=0), 1e-6)
        mean = shown if self.terms.goal == "minimize" else -shown
        index = int(np.argmax(log_expected_improvement(min(map(loss, self.observations)), mean, deviation)))
        return index, f"Predicted {self.terms.metric} {shown[index]:.5f} ± {deviation[index]:.5f}."


class LlamboOptuna(Llambo):
    """Predicts good or bad, draws categories at random, hides failures."""

    failures_shown = False
    prediction = "boolean"
    predictions = "booleans, true for good"

    def label(self) -> str:
        return "class, good or bad"

    def target(self) -> str:
        return "the class good"

    def labelled(self, observations: Sequence[Observation]) -> str:
        border = float(np.quantile([loss(o) for o in successes(self.observations)], GOOD))
        head, line, *rows = table(self.space, observations, self.terms).split("\n")
        names = ["good" if loss(o) <= border else "bad" for o in observations]
        labelled = (f"| {name} |{cells.split('|', 2)[2]}" for name, cells in zip(names, rows, strict=True))
        return "\n".join([head, line, *labelled])

    def complete(self, params: dict[str, Value], random: np.random.Generator) -> dict[str, Value]:
        names = [self.space.names[i] for i in self.space.categorical]
        for _ in range(DRAWS):
            drawn = self.space.from_unit(random.random(self.space.dimensions))
            params = params | {name: drawn[name] for name in names}
            if self.space.key(params) not in self.seen:
                break
        return params

    def pick(self, scores: Array) -> tuple[int, str]:
        share = scores.mean(axis=0)
        index = int(np.argmax(share))
        return index, f"Predicted to be good in {share[index]:.0%} of {len(scores)} answers."
