"""What search methods share: counting asks, checking tells, no configuration twice, and a state that can be replayed.

The state is a fold over asks and tells in their order. The k-th ask draws from (seed, k) and from that state alone, so
a replay comes to the same next ask bit for bit, and never has to compute the asks in between again.
"""

from __future__ import annotations

import dataclasses
import math
import operator
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from agent.errors import ReplyRejected, UsageError
from agent.proposers.protocol import Suggestion
from agent.space.space import Key, SearchSpace, Unit
from agent.types import Goal, Value

_UNIFORM = 200  # uniform draws before the values of a finite space are gone through one by one


@dataclass(frozen=True)
class Terms:
    """In which words a model hears of the search: the user's metric and direction, and the user's notes."""

    metric: str = "loss"
    goal: Goal = "minimize"
    notes: str = ""

    @property
    def better(self) -> str:
        return "lower is better" if self.goal == "minimize" else "higher is better"

    def shown(self, value: float) -> float:
        """A value that is minimised, as the user knows it; also the way back."""
        return value if self.goal == "minimize" else -value


@dataclass(frozen=True)
class Told:
    """One result. ``value`` is None exactly if it failed; ``x`` [dimensions] is the point of the unit cube."""

    params: Mapping[str, Value]
    key: Key
    x: Unit
    value: float | None
    n: int
    status: str
    memory_gb: float | None
    source: str = ""  # who drew it; empty if nobody here did


class Method(ABC):
    """A search method. ``baseline`` is where it starts: known, so never proposed."""

    source = ""  # what its suggestions are labelled with
    terms = Terms()  # set by who knows the user's; no point but a model's depends on them

    def __init__(self, space: SearchSpace, seed: int = 0, baseline: Mapping[str, Value] | None = None) -> None:
        try:
            number = operator.index(seed)
        except TypeError:
            raise UsageError(f"the seed is a whole number, not {seed!r}") from None
        if baseline is not None and (wrong := space.valid(baseline)):
            raise UsageError(f"the baseline cannot be searched from: {'; '.join(wrong)}")
        self.space, self.seed = space, number % 2**63
        self.baseline = space.exact(baseline) if baseline is not None else space.defaults
        self.asks = 0
        self.told: list[Told] = []
        self.open: dict[Key, Suggestion] = {}  # asked and not told, in the order of asking
        self.seen: set[Key] = {space.key(self.baseline)}
        self._sources: dict[Key, str] = {}

    @abstractmethod
    def propose(self, ask: int) -> Suggestion:
        """The suggestion of the ``ask``-th ask (from 0). Must not change what later asks depend on."""

    def figures(self) -> dict[str, float]:
        """The method's present state, as the report draws it. Changes nothing."""
        return {}

    def asked(self, suggestion: Suggestion, ask: int) -> None:  # noqa: B027 - most methods need not know
        """``suggestion`` was given out by the ``ask``-th ask, now or before a resume."""

    def learn(self, told: Told) -> None:  # noqa: B027 - random search learns nothing
        """A result was added to ``self.told``."""

    def suggest(self) -> Suggestion:
        try:
            suggestion = dataclasses.replace(self.propose(self.asks), search=self.figures())
        except ReplyRejected:
            self.replay(None)
            raise
        self.replay(suggestion)
        return suggestion

    def ask(self) -> dict[str, Value]:
        return dict(self.suggest().params)

    def replay(self, suggestion: Suggestion | None) -> None:
        ask, self.asks = self.asks, self.asks + 1
        if suggestion is None:
            return
        key = self.space.key(suggestion.params)
        self.asked(suggestion, ask)
        self.seen.add(key)
        self.open[key] = suggestion
        self._sources[key] = suggestion.source

    def tell(
        self,
        params: Mapping[str, Value],
        value: float | None,
        *,
        n: int = 1,
        status: str = "ok",
        memory_gb: float | None = None,
    ) -> None:
        """Take in a result. A status other than ``ok``, no value, or one that is not finite is a failure.

        Raises:
            UsageError: ``params`` are not a configuration of this space, or a figure is no number. Nothing changed.
        """
        if wrong := self.space.valid(params):
            raise UsageError(f"told about a configuration that is not in the search space: {'; '.join(wrong)}")
        params = self.space.exact(params)
        result, memory, runs = _number("value", value), _number("memory_gb", memory_gb), _number("n", n)
        if status != "ok":
            result = None
        key = self.space.key(params)
        told = Told(
            params,
            key,
            self.space.to_unit(params),
            result,
            max(1, int(runs or 1)),
            str(status) if status not in ("ok", "", None) or result is not None else "failed",
            memory if memory is not None and memory > 0 else None,
            self._sources.get(key, ""),
        )
        self.open.pop(key, None)
        self.seen.add(key)
        self.told.append(told)
        self.learn(told)

    def stream(self, ask: int, name: str = "") -> np.random.Generator:
        """The random numbers of the ``ask``-th ask, a stream of its own for each ``name``."""
        return np.random.default_rng([self.seed, ask, *name.encode()])

    def unseen(self, draw: Callable[[], Mapping[str, Value]], ask: int, tries: int = 50) -> dict[str, Value]:
        """The first of ``draw``'s configurations that was neither asked nor told; after ``tries``, another.

        A finite space in which everything was seen gives a repetition.
        """
        for _ in range(tries):
            params = dict(draw())
            if self.space.key(params) not in self.seen:
                return params
        random, home = self.stream(ask, "uniform"), self.space.to_unit(self.baseline)
        for k in range(_UNIFORM):  # half of them nearer and nearer to the baseline: constraints may leave but a corner
            reach = min(1.0, 10.0 ** (3.0 - 6.0 * k / _UNIFORM))
            params = self.space.from_unit(home + reach * (random.random(self.space.dimensions) - home))
            if self.space.key(params) not in self.seen:
                return params
        if self.space.size <= 100_000:
            left = [every for every in self.space.every() if self.space.key(every) not in self.seen]
            if left:
                return left[int(random.integers(len(left)))]
        return params

    def repeats(self, params: Mapping[str, Value]) -> str:
        """Why a configuration of a model's is nothing new, in words; empty if it is new, or nothing new is left."""
        key = self.space.key(params)
        if key not in self.seen or self._exhausted():
            return ""
        if key == self.space.key(self.baseline):
            return "this is the configuration that the search started from; change at least one value"
        known = next((told for told in self.told if told.key == key), None)
        if known is None:
            return "this configuration is being tried right now; change at least one value"
        result = f"gave {self.terms.shown(known.value):.5f}" if known.value is not None else f"failed: {known.status}"
        return f"this configuration was tried before and {result}; change at least one value"

    def _exhausted(self) -> bool:
        return self.space.size <= 100_000 and all(self.space.key(every) in self.seen for every in self.space.every())

    @property
    def successes(self) -> list[Told]:
        return [told for told in self.told if told.value is not None]

    @property
    def best(self) -> Told | None:
        return min(self.successes, key=lambda told: told.value or 0.0, default=None)


def _number(name: str, value: float | None) -> float | None:
    """``value`` as a float; None for none and for what is not finite."""
    try:
        if isinstance(value, (str, bytes)):
            raise TypeError
        number = math.nan if value is None else float(value)
    except OverflowError:
        return None
    except (TypeError, ValueError):
        text = f"told {name} = {value!r}, which is not a number; a failure has no value but a status"
        raise UsageError(text) from None
    return number if math.isfinite(number) else None
