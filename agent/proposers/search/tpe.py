"""Optuna's samplers behind ask and tell: tree-structured Parzen estimator (Bergstra et al. 2011), uniform draws.

Each ask builds a study out of what was told and asks it once with a seed of its own, so that there is no state besides
the history. Powers of two are searched by their exponent; a failed trial counts as the worst one.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING

from agent.errors import EnvironmentProblem
from agent.proposers.protocol import Suggestion
from agent.proposers.search.base import Method, Told
from agent.space.space import SearchSpace
from agent.types import Param, Value

try:
    import optuna
except ModuleNotFoundError as error:
    raise EnvironmentProblem("tpe and random need Optuna: pip install 'overnight[hpo]'") from error

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial

REDRAWS = 16


class OptunaSearch(Method):
    """A sampler of Optuna, rebuilt for every ask."""

    def __init__(self, space: SearchSpace, seed: int = 0, baseline: Mapping[str, Value] | None = None) -> None:
        super().__init__(space, seed, baseline)
        self._distributions = {p.name: distribution(p) for p in space.params}

    def sampler(self, seed: int) -> BaseSampler:
        raise TypeError("a subclass chooses the sampler")

    def history(self) -> list[FrozenTrial]:
        return []

    def propose(self, ask: int) -> Suggestion:
        random = self.stream(ask)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # experimental features are chosen on purpose
            verbosity = optuna.logging.get_verbosity()
            optuna.logging.set_verbosity(optuna.logging.ERROR)
            study = optuna.create_study(sampler=self.sampler(int(random.integers(2**31))))
            study.add_trials(self.history())
            params = self.unseen(lambda: self._decoded(study.ask(self._distributions).params), ask, REDRAWS)
            optuna.logging.set_verbosity(verbosity)
        return Suggestion(params, self.source)

    def _decoded(self, params: Mapping[str, Value]) -> dict[str, Value]:
        """Optuna's parameters as a valid configuration, rounded as the space rounds."""
        plain = {p.name: _from_optuna(p, params[p.name]) for p in self.space.params}
        return self.space.from_unit(self.space.to_unit(plain))

    def _trial(self, params: Mapping[str, Value], value: float | None) -> FrozenTrial:
        """A finished trial, or a running one without ``value``."""
        state = optuna.trial.TrialState.RUNNING if value is None else optuna.trial.TrialState.COMPLETE
        encoded = {p.name: _to_optuna(p, params[p.name]) for p in self.space.params}
        return optuna.trial.create_trial(state=state, value=value, params=encoded, distributions=self._distributions)


class RandomSearch(OptunaSearch):
    """Uniform draws: the yardstick."""

    source = "random"

    def sampler(self, seed: int) -> BaseSampler:
        return optuna.samplers.RandomSampler(seed)


class Tpe(OptunaSearch):
    """Optuna's TPE as it comes: univariate, ten uniform trials first, open points counted as bad ones."""

    source = "tpe"

    def sampler(self, seed: int) -> BaseSampler:
        return optuna.samplers.TPESampler(seed=seed)

    def history(self) -> list[FrozenTrial]:
        worst = max((told.value for told in self.told if told.value is not None), default=0.0)
        finished = [self._trial(told.params, _value_or(told, worst)) for told in self.told]
        return finished + [self._trial(suggestion.params, None) for suggestion in self.open.values()]


def distribution(p: Param) -> BaseDistribution:
    """What Optuna draws a parameter from; a power of two by its exponent."""
    if p.kind == "categorical":
        return optuna.distributions.CategoricalDistribution(p.choices)
    assert p.low is not None
    assert p.high is not None
    if p.power_of_two:
        return optuna.distributions.IntDistribution(
            math.ceil(math.log2(p.low) - 1e-9), math.floor(math.log2(p.high) + 1e-9)
        )
    if p.kind == "int":
        return optuna.distributions.IntDistribution(math.ceil(p.low), math.floor(p.high), log=p.log)
    return optuna.distributions.FloatDistribution(p.low, p.high, log=p.log)


def _to_optuna(p: Param, value: Value) -> Value:
    if p.kind == "categorical":
        return p.choices[_same(p.choices, value)]
    assert not isinstance(value, str)
    if p.power_of_two:
        return round(math.log2(value))
    return int(value) if p.kind == "int" else float(value)


def _same(choices: tuple[Value, ...], value: Value) -> int:
    """Index of a choice; True and 1 are different ones."""
    return next(i for i, c in enumerate(choices) if c == value and isinstance(c, bool) == isinstance(value, bool))


def _from_optuna(p: Param, value: Value) -> Value:
    return 2 ** int(value) if p.power_of_two else value


def _value_or(told: Told, worst: float) -> float:
    return worst if told.value is None else told.value
