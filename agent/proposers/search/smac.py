"""SMAC3 behind ask and tell: random forest, expected improvement, local search.

The parts are those of SMAC's HyperparameterOptimizationFacade. Each ask builds a run history from the observations and
has its own seed, so there is no other state. The forest is trained at each ask, not at every eighth as in SMAC. A
failure counts as the worst value.

Source: Lindauer et al. (2022), SMAC3, JMLR 23(54).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from agent.errors import EnvironmentProblem
from agent.proposers.search.base import Method, Suggestion, loss, successes
from agent.space.axes import Axis, Choices, Real, Whole
from agent.space.space import Params
from agent.types import Value
from sandbox.packages import install_command

try:
    from ConfigSpace import (
        CategoricalHyperparameter,
        Configuration,
        ConfigurationSpace,
        UniformFloatHyperparameter,
        UniformIntegerHyperparameter,
    )
    from smac import HyperparameterOptimizationFacade as Facade
    from smac import Scenario
    from smac.model.random_forest.random_forest import RandomForest
    from smac.runhistory import RunHistory, StatusType
except ModuleNotFoundError as error:
    raise EnvironmentProblem(f"smac needs SMAC3: {install_command('overnight[smac]')}") from error

FIRST = 25  # most points of the scrambled Sobol design: SMAC's share of 100 trials
REDRAWS = 50
CHALLENGERS = 2000  # random points that are ranked; default of SMAC: 10,000
STARTS = 3  # of the local search; the default of SMAC, 10, takes seconds
SEEDS = 2**31


class Smac(Method):
    """A Sobol design of up to 25 points, then SMAC's model."""

    source = "smac"

    def propose(self, ask: int) -> Suggestion:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # SMAC warns about seeds and small designs
            draws = self._challengers(ask)
            return Suggestion(self.unseen(lambda: next(draws), ask, REDRAWS), self.source)

    def _challengers(self, ask: int) -> Iterator[dict[str, Value]]:
        """A point of the design or SMAC's challengers, best first; then uniform points."""
        random = self.stream(ask)
        if ask < len(self._design):
            yield self.space.inward(self._design[ask])
        elif successes(self.observations):
            yield from map(self.space.inward, self._ranked(self._scenario(int(random.integers(SEEDS)))))
        while True:
            yield self.space.from_unit(random.random(self.space.dimensions))

    @cached_property
    def _design(self) -> list[Configuration]:
        first = min(FIRST, 10 * self.space.dimensions)
        scenario = self._scenario(int(self.stream(0, "design").integers(SEEDS)))
        chosen = Facade.get_initial_design(scenario, n_configs=first, max_ratio=1.0).select_configurations()
        # SMAC drops duplicates, so the design of a small space is shorter; unseen() replaces repeated points
        return [chosen[i % len(chosen)] for i in range(first)]

    def _ranked(self, scenario: Scenario) -> Iterator[Configuration]:
        """Challengers by SMAC's expected improvement, interleaved with random ones."""
        history, encoder = self._history(scenario.configspace), Facade.get_runhistory_encoder(scenario)
        encoder.runhistory = history
        x, y = encoder.transform()
        model = RandomForest(  # SMAC's, in one thread and with fewer leaves: memory for a million takes a second
            scenario.configspace, seed=scenario.seed, log_y=True, n_trees=10, ratio_features=1.0, min_samples_split=2,
            min_samples_leaf=1, max_leaf_nodes=2**13, n_jobs=1,
        )  # fmt: skip
        model.train(x, y)
        improvement = Facade.get_acquisition_function(scenario)
        improvement.update(model=model, eta=float(model.predict_marginalized(x)[0].min()), num_data=len(x))
        maximizer = Facade.get_acquisition_maximizer(scenario, challengers=CHALLENGERS, local_search_iterations=STARTS)
        maximizer.acquisition_function = improvement
        starts = maximizer._local_search._get_initial_points
        # SMAC orders its starting points by hash(), which differs between processes
        maximizer._local_search._get_initial_points = lambda *a: sorted(starts(*a), key=lambda c: tuple(c.get_array()))  # type: ignore[method-assign]
        found: Iterator[Configuration] = maximizer.maximize(
            history.get_configs(), random_design=Facade.get_random_design(scenario)
        )
        return found

    def _history(self, space: ConfigurationSpace) -> RunHistory:
        """One row for each observation. Open asks count as running."""
        history = RunHistory()
        worst = max(map(loss, successes(self.observations)))
        for k, o in enumerate(self.observations):
            status = StatusType.CRASHED if o.value is None else StatusType.SUCCESS
            history.add(self._encoded(space, o.params), cost=min(loss(o), worst), status=status, seed=k)
        for suggestion in self.open.values():
            history.add(self._encoded(space, suggestion.params), cost=worst, status=StatusType.RUNNING, seed=-1)
        return history

    # --- SMAC's space -----------------------------------------------------------------------------------------------

    def _scenario(self, seed: int) -> Scenario:
        space = ConfigurationSpace(seed=seed)
        space.add([_hyperparameter(axis) for axis in self.space.axes.values()])
        return Scenario(space, name="ask", output_directory=Path("unused"), deterministic=True, seed=seed)

    def _encoded(self, space: ConfigurationSpace, params: Params) -> Configuration:
        return Configuration(space, values={n: axis.outward(params[n]) for n, axis in self.space.axes.items()})


def _hyperparameter(axis: Axis) -> Any:
    p = axis.param
    if isinstance(axis, Choices):
        return CategoricalHyperparameter(p.name, list(range(axis.count)))
    if isinstance(axis, Whole):
        return UniformIntegerHyperparameter(p.name, *axis.ends, log=p.log and not axis.indexed)
    assert isinstance(axis, Real)
    return UniformFloatHyperparameter(p.name, axis.low, axis.high, log=p.log)
