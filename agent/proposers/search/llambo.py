"""LLAMBO (Liu, Astorga, Seedat, van der Schaar 2024, arXiv 2402.03921): Bayesian optimisation in words.

The model is asked twice: for candidates that reach a value somewhat better than the best, and, having seen what was
measured in a shuffled order, for what the candidates will bring. ``llambo`` predicts losses, and the candidate with
the largest expected improvement is tried; it proposes all parameters and sees the failures. ``llambo-optuna`` is the
variant of OptunaHub that the paper on Centaur compares: it predicts good or bad, draws categories at random, and hides
failures.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from agent.errors import ReplyRejected
from agent.llm.chat import Chat, Reply
from agent.llm.prompts import fill
from agent.proposers.protocol import Suggestion
from agent.proposers.search.adviser import Conversation
from agent.proposers.search.answer_forms import parse_object, point_schema, read_object
from agent.proposers.search.base import Method, Told
from agent.proposers.search.prompt_tables import bounds, row, table, wording
from agent.space.space import SearchSpace
from agent.types import Value

FIRST = 5  # uniform points before the model is asked
CANDIDATES = 10
PREDICTIONS = 5
SHOWN = 60  # results in a prompt: the best half and the latest
ALPHA = 0.1  # how far below the best the target lies, in units of the range of values
DRAWS = 50  # of the categories, until the configuration is new
GOOD = 0.25  # share of the results that count as good


class Llambo(Method):
    """``llambo``: losses, all parameters, failures visible."""

    source = "llm"
    failures_shown = True

    def __init__(
        self, space: SearchSpace, seed: int = 0, baseline: Mapping[str, Value] | None = None, *, llm: Chat
    ) -> None:
        super().__init__(space, seed, baseline)
        self.llm = llm

    def propose(self, ask: int) -> Suggestion:
        random = self.stream(ask)
        if len(self.successes) < min(FIRST, max(1, self.space.dimensions)):
            draw = lambda: self.space.from_unit(random.random(self.space.dimensions))  # noqa: E731
            return Suggestion(self.unseen(draw, ask), "random", "The first points are uniform.")
        talk = Conversation(self.llm, self.stream(ask, "llm"))
        history = self._history(random)
        candidates = talk.until_good(
            fill(
                "llambo",
                bounds=bounds(self.space),
                history=history,
                target=self.target(),
                label=self.label(),
                notes=wording(self)["notes"],
                names=", ".join(self.space.names),
            ),
            {"n": CANDIDATES} | self._form(point_schema(self.space, rationale=False)),
            lambda reply: self._candidates(reply, random),
        )
        if len(candidates) == 1:
            return talk.suggestion(candidates[0], "The only new candidate.")
        scores = talk.until_good(
            fill(
                "llambo-score",
                history=history,
                candidates="\n".join(f"{i + 1}. |{row(self.space, c)}" for i, c in enumerate(candidates)),
                label=self.label(),
                count=len(candidates),
                form=self.answer_form(),
            ),
            {"n": PREDICTIONS} | self._form(self.answer_schema(len(candidates))),
            lambda reply: self._predictions(reply, len(candidates)),
        )
        index, rationale = self.pick(scores)
        return talk.suggestion(candidates[index], rationale)

    def _form(self, schema: dict[str, Any]) -> dict[str, Any]:
        return {"schema": schema} if "schema" in self.llm.describe().structured else {}

    # --- what differs between the two -------------------------------------------------------------------------------

    def label(self) -> str:
        return f"{self.terms.metric}, {self.terms.better}"

    def target(self) -> str:
        values = [told.value for told in self.successes if told.value is not None]
        aim = min(values) - ALPHA * (max(values) - min(values))
        return f"a {self.terms.metric} of {self.terms.shown(aim):.5f}"

    def labelled(self, told: Sequence[Told]) -> str:
        return table(self.space, told, self.terms)

    def complete(self, params: dict[str, Value], random: np.random.Generator) -> dict[str, Value]:
        return params

    def answer_form(self) -> str:
        return 'the key "predictions" with a list of numbers'

    def answer_schema(self, count: int) -> dict[str, Any]:
        return _list_schema({"type": "number"}, count)

    def pick(self, scores: np.ndarray[Any, np.dtype[np.float64]]) -> tuple[int, str]:
        """The largest expected improvement, by ``scores`` [predictions, candidates]."""
        from agent.proposers.search.gp import log_expected_improvement

        best = min(told.value for told in self.successes if told.value is not None)
        shown, deviation = scores.mean(axis=0), np.maximum(scores.std(axis=0), 1e-6)
        mean = shown if self.terms.goal == "minimize" else -shown
        index = int(np.argmax(log_expected_improvement(best, mean, deviation)))
        return index, f"Predicted {self.terms.metric} {shown[index]:.5f} ± {deviation[index]:.5f}."

    # --- prompts and replies ----------------------------------------------------------------------------------------

    def _history(self, random: np.random.Generator) -> str:
        known = self.told if self.failures_shown else self.successes
        if len(known) > SHOWN:
            order = sorted(range(len(known)), key=lambda i: math.inf if (v := known[i].value) is None else v)
            chosen = set(order[: SHOWN // 2])
            chosen.update([i for i in reversed(range(len(known))) if i not in chosen][: SHOWN - len(chosen)])
            known = [known[i] for i in sorted(chosen)]
        return self.labelled([known[i] for i in random.permutation(len(known))])

    def _candidates(self, reply: Reply, random: np.random.Generator) -> list[dict[str, Value]]:
        """The new ones among the choices of a reply. Raises ReplyRejected if there is none."""
        found: dict[Any, dict[str, Value]] = {}
        problem = ""
        for text in reply.choices or (reply.text,):
            try:
                params = self.complete(read_object(self.space, text)[0], random)
                if not (wrong := "; ".join(self.space.valid(params)) or self.repeats(params)):
                    found.setdefault(self.space.key(params), params)
            except ReplyRejected as error:
                wrong = str(error)
            problem = problem or wrong
        if not found:
            raise ReplyRejected(problem)
        return list(found.values())

    @staticmethod
    def _predictions(reply: Reply, count: int) -> np.ndarray[Any, np.dtype[np.float64]]:
        """[predictions, count]. Raises ReplyRejected if no choice of the reply is a prediction."""
        rows, problem = [], ""
        for text in reply.choices or (reply.text,):
            try:
                values = parse_object(text).get("predictions")
                good = isinstance(values, list) and len(values) == count
                if not good or not all(isinstance(v, (int, float)) and math.isfinite(v) for v in values or []):
                    raise ReplyRejected(f'"predictions" is no list of {count} values')
                rows.append([float(v) for v in values or []])
            except ReplyRejected as error:
                problem = str(error)
        if not rows:
            raise ReplyRejected(problem)
        return np.array(rows)


class LlamboOptuna(Llambo):
    """``llambo-optuna``: good or bad, categories at random, failures hidden."""

    failures_shown = False

    def label(self) -> str:
        return "class, good or bad"

    def target(self) -> str:
        return "the class good"

    def labelled(self, told: Sequence[Told]) -> str:
        border = float(np.quantile([t.value for t in self.successes if t.value is not None], GOOD))
        head, line, *rows = table(self.space, told, self.terms).split("\n")
        names = ["good" if t.value is not None and t.value <= border else "bad" for t in told]
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

    def answer_form(self) -> str:
        return 'the key "predictions" with a list of booleans, true for good'

    def answer_schema(self, count: int) -> dict[str, Any]:
        return _list_schema({"type": "boolean"}, count)

    def pick(self, scores: np.ndarray[Any, np.dtype[np.float64]]) -> tuple[int, str]:
        share = scores.mean(axis=0)
        index = int(np.argmax(share))
        return index, f"Predicted to be good in {share[index]:.0%} of {len(scores)} answers."


def _list_schema(item: dict[str, Any], count: int) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {"predictions": {"type": "array", "items": item, "minItems": count, "maxItems": count}},
        "required": ["predictions"],
        "additionalProperties": False,
    }
