"""Optuna's samplers behind ask and tell: tree-structured Parzen estimator, uniform draws.

Each ask builds a study from the observations and has its own seed, so there is no other state. A failure counts as the
worst value.

Source: Bergstra, Bardenet, Bengio and Kégl (2011), Algorithms for hyper-parameter optimization, NeurIPS 24.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from agent.errors import EnvironmentProblem
from agent.proposers.search.base import Method, Suggestion, loss, successes
from agent.space.axes import Axis, Choices, Real, Whole
from agent.space.space import Params, SearchSpace
from sandbox.packages import install_command

try:
    import optuna
except ModuleNotFoundError as error:
    raise EnvironmentProblem(f"tpe and random need Optuna: {install_command('overnight[hpo]')}") from error

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial

REDRAWS = 16


class Tpe(Method):
    """Optuna's TPE with its defaults: univariate, ten uniform trials first. An open ask counts as running."""

    source = "tpe"
    sampler: type[BaseSampler] = optuna.samplers.TPESampler

    def __init__(self, space: SearchSpace, seed: int = 0, baseline: Params | None = None) -> None:
        super().__init__(space, seed, baseline)
        self._distributions = {name: distribution(axis) for name, axis in space.axes.items()}

    def propose(self, ask: int) -> Suggestion:
        seed = int(self.stream(ask).integers(2**31))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Optuna warns about experimental features
            verbosity = optuna.logging.get_verbosity()
            optuna.logging.set_verbosity(optuna.logging.ERROR)
            try:
                study = optuna.create_study(sampler=self.sampler(seed=seed))  # type: ignore[call-arg]
                study.add_trials(self.history())
                params = self.unseen(lambda: self.space.inward(study.ask(self._distributions).params), ask, REDRAWS)
            finally:
                optuna.logging.set_verbosity(verbosity)
        return Suggestion(params, self.source)

    def history(self) -> list[FrozenTrial]:
        worst = max(map(loss, successes(self.observations)), default=0.0)
        finished = [self.trial(o.params, min(loss(o), worst)) for o in self.observations]
        return finished + [self.trial(suggestion.params, None) for suggestion in self.open.values()]

    def trial(self, params: Params, value: float | None) -> FrozenTrial:
        """A finished trial, or a running one if ``value`` is None."""
        state = optuna.trial.TrialState.RUNNING if value is None else optuna.trial.TrialState.COMPLETE
        shown = {name: axis.outward(params[name]) for name, axis in self.space.axes.items()}
        return optuna.trial.create_trial(state=state, value=value, params=shown, distributions=self._distributions)


class RandomSearch(Tpe):
    """Uniform draws: the control."""

    source = "random"
    sampler = optuna.samplers.RandomSampler

    def history(self) -> list[FrozenTrial]:
        return []  # its draws do not depend on results


def distribution(axis: Axis) -> BaseDistribution:
    """The Optuna distribution of an axis, over what ``Axis.outward`` gives."""
    if isinstance(axis, Choices):
        return optuna.distributions.CategoricalDistribution(range(axis.count))
    if isinstance(axis, Whole):
        return optuna.distributions.IntDistribution(*axis.ends, log=axis.param.log and not axis.indexed)
    assert isinstance(axis, Real)
    return optuna.distributions.FloatDistribution(axis.low, axis.high, log=axis.param.log)
