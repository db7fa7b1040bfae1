"""What all search methods share: counted asks, checked tells, no repeated configuration, state by replay.

The state is a fold over asks and tells in their order. The k-th ask draws from (seed, k) and that state only. A replay
therefore gives the same next ask bit for bit, without computing the earlier asks again.
"""

from __future__ import annotations

import math
import operator
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain

import numpy as np

from agent.errors import ReplyRejected, SearchExhausted, UsageError
from agent.space.space import Key, Params, SearchSpace, Unit
from agent.text import better
from agent.types import Goal, Value, minimised

UNIFORM_DRAWS = 200  # before the values of a finite space are listed
LISTED = 100_000  # configurations up to which a finite space is listed


@dataclass(frozen=True)
class Suggestion:
    """A configuration and its origin."""

    params: Params
    source: str  # cma, gp, tpe, random, smac, llm
    rationale: str = ""
    model: str = ""
    transcript: str = ""  # the conversation with a model, as Markdown
    usage: Mapping[str, float] = field(default_factory=dict)  # calls, tokens in and out, seconds
    search: Mapping[str, float] = field(default_factory=dict)  # ``Method.figures`` at this ask


class NoPoint(ReplyRejected):
    """The model answered without a usable configuration. Carries the conversation for the record."""

    def __init__(self, message: str, model: str = "", transcript: str = "", usage: Mapping[str, float] = {}) -> None:
        super().__init__(message)
        self.model, self.transcript, self.usage = model, transcript, usage


@dataclass(frozen=True)
class Terms:
    """The user's metric, goal and notes, as prompts state them."""

    metric: str = "loss"
    goal: Goal = "minimize"
    notes: str = ""

    @property
    def variables(self) -> dict[str, str]:
        """The variables of prompts."""
        return {"metric": self.metric, "better": better(self.goal), "notes": self.notes or "A better result."}

    def shown(self, value: float) -> float:
        """A minimised value in the user's sign; also the inverse."""
        return minimised(value, self.goal)


@dataclass(frozen=True)
class Observation:
    """One reported result. ``value`` is None iff the trial failed; ``x`` [dimensions] is its point in the unit cube."""

    params: Params
    key: Key
    x: Unit
    value: float | None
    n: int  # runs behind ``value``
    status: str
    memory_gb: float | None
    source: str = ""  # source of the suggestion; empty for a configuration that was not asked


class Method(ABC):
    """A search method over a hyperparameter space. Implements ``SearchMethod``.

    Args:
        space: the search space.
        seed: any integer.
        baseline: configuration where the search starts; never proposed. Default: the defaults of the space.

    Raises:
        UsageError: the seed is no integer, or the baseline is not in the space.
    """

    source = ""  # label of its suggestions
    terms = Terms()  # set by BlockProposer; only prompts use them

    def __init__(self, space: SearchSpace, seed: int = 0, baseline: Params | None = None) -> None:
        try:
            number = operator.index(seed)
        except TypeError:
            raise UsageError(f"the seed must be an integer, not {seed!r}") from None
        if baseline is not None and (wrong := space.valid(baseline)):
            raise UsageError(f"the baseline is not in the search space: {'; '.join(wrong)}")
        self.space, self.seed = space, number % 2**63
        self.baseline = space.exact(baseline) if baseline is not None else space.defaults
        self.asks = 0
        self.observations: list[Observation] = []
        self.best: Observation | None = None  # the success with the smallest value
        self.open: dict[Key, Suggestion] = {}  # asks without a result, in order
        self.seen: set[Key] = {space.key(self.baseline)}  # asked, reported, or the baseline

    @abstractmethod
    def propose(self, ask: int) -> Suggestion:
        """The suggestion of ask number ``ask`` (from 0). Must not change the state."""

    def figures(self) -> dict[str, float]:
        """Figures of the present state for the report. Must not change the state."""
        return {}

    def asked(self, suggestion: Suggestion, ask: int) -> None:  # noqa: B027 - optional hook
        """Hook: ask number ``ask`` returned ``suggestion``, now or before a resume."""

    def learn(self, observation: Observation, suggestion: Suggestion | None) -> None:  # noqa: B027 - optional hook
        """Hook: ``observation`` was appended to ``self.observations``; ``suggestion`` is its open ask, if any."""

    def suggest(self) -> Suggestion:
        """``ask`` with the origin of the configuration.

        Raises:
            ModelUnavailable: no model server answers. The state is unchanged; the call may be repeated.
            ReplyRejected: the model gave no usable configuration. The ask is used up.
            SearchExhausted: every configuration was asked or reported.
        """
        if self.space.size <= LISTED and all(self.space.key(params) in self.seen for params in self.space.every()):
            raise self._exhausted()
        try:
            suggestion = self.propose(self.asks)
            suggestion = replace(suggestion, search={**suggestion.search, **self.figures()})
        except ReplyRejected:
            self.replay(None)
            raise
        self.replay(suggestion)
        return suggestion

    def ask(self) -> dict[str, Value]:
        """The next configuration to evaluate. Raises as ``suggest``."""
        return dict(self.suggest().params)

    def replay(self, suggestion: Suggestion | None) -> None:
        """Register an ask of the past and what it returned; None if it ended in ReplyRejected."""
        ask, self.asks = self.asks, self.asks + 1
        if suggestion is None:
            return
        key = self.space.key(suggestion.params)
        self.asked(suggestion, ask)
        self.seen.add(key)
        self.open[key] = suggestion

    def tell(
        self, params: Params, value: float | None, *, n: int = 1, status: str = "ok", memory_gb: float | None = None
    ) -> None:
        """Report a result, as ``SearchMethod.tell``. A missing or non-finite value is a failure.

        Raises:
            UsageError: ``params`` are not in the space, or an argument is no number. The state is unchanged.
        """
        if wrong := self.space.valid(params):
            raise UsageError(f"tell: the configuration is not in the search space: {'; '.join(wrong)}")
        params = self.space.exact(params)
        result, memory, runs = _number("value", value), _number("memory_gb", memory_gb), int(_number("n", n) or 1)
        if status != "ok" or result is None:
            result, status = None, "failed" if status in ("ok", "", None) else str(status)
        key, x, memory = self.space.key(params), self.space.to_unit(params), max(memory or 0.0, 0.0) or None
        suggestion = self.open.pop(key, None)
        source = suggestion.source if suggestion else ""
        observation = Observation(params, key, x, result, max(1, runs), status, memory, source)
        self.seen.add(key)
        self.observations.append(observation)
        if result is not None and (self.best is None or result < loss(self.best)):
            self.best = observation
        self.learn(observation, suggestion)

    def stream(self, ask: int, name: str = "") -> np.random.Generator:
        """Random generator of ask number ``ask``; independent for each ``name``."""
        return np.random.default_rng([self.seed, ask, *name.encode()])

    def unseen(self, draw: Callable[[], Params], ask: int, tries: int = 50) -> dict[str, Value]:
        """The first new configuration among ``tries`` calls of ``draw``, then of uniform draws, then of all.

        Raises:
            SearchExhausted: no new configuration was found.
        """
        random, home, d = self.stream(ask, "uniform"), self.space.to_unit(self.baseline), self.space.dimensions
        reaches = (min(1.0, 10.0 ** (3.0 - 6.0 * k / UNIFORM_DRAWS)) for k in range(UNIFORM_DRAWS))
        # the later half shrinks to the baseline: constraints may leave a small corner
        uniform = (self.space.from_unit(home + reach * (random.random(d) - home)) for reach in reaches)
        for params in chain((draw() for _ in range(tries)), uniform):
            if self.space.key(params) not in self.seen:
                return dict(params)
        finite = self.space.every() if self.space.size <= LISTED else ()
        left = [params for params in finite if self.space.key(params) not in self.seen]
        if not left:
            raise self._exhausted()
        return left[int(random.integers(len(left)))]

    def _exhausted(self) -> SearchExhausted:
        return SearchExhausted(
            f"all {len(self.seen)} configurations of the search space are proposed, and no new one is left; "
            "widen the bounds of [[hyperparameters]] in target.toml to search on"
        )


def loss(observation: Observation) -> float:
    """The minimised value; infinite for a failure."""
    return math.inf if observation.value is None else observation.value


def successes(observations: Iterable[Observation]) -> list[Observation]:
    return [observation for observation in observations if observation.value is not None]


def best_and_latest(known: Sequence[Observation], most: int) -> Sequence[Observation]:
    """At most ``most`` observations in their order: the best ``most // 2``, and the latest of the others."""
    if len(known) <= most:
        return known
    chosen = set(sorted(range(len(known)), key=lambda i: loss(known[i]))[: most // 2])
    chosen.update([i for i in reversed(range(len(known))) if i not in chosen][: most - len(chosen)])
    return [known[i] for i in sorted(chosen)]


def _number(name: str, value: float | None) -> float | None:
    """``value`` as a float; None for None and for a non-finite value."""
    try:
        return float(value) if value is not None and math.isfinite(value) else None
    except OverflowError:
        return None
    except TypeError:
        raise UsageError(f"tell: {name} = {value!r} is not a number; report a failure with value None") from None
