"""SMAC3 behind ask and tell: random forest, expected improvement, local search (Lindauer et al. 2022, JMLR 23).

The pieces are those of SMAC's facade for hyperparameter optimisation. Each ask builds its run history anew out of what
was told and draws from a seed of its own, so that there is no state besides the history. SMAC itself trains its model
once for eight asks; here it is trained for each. A failed trial counts as the worst one.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from agent.errors import EnvironmentProblem
from agent.proposers.protocol import Suggestion
from agent.proposers.search.base import Method
from agent.space.space import SearchSpace
from agent.types import Value

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
    raise EnvironmentProblem("smac needs SMAC3: pip install 'overnight[smac]'") from error

FIRST = 25  # points of a scrambled Sobol sequence at most, before the model is asked: SMAC's share of 100 trials
REDRAWS = 50
CHALLENGERS = 2000  # random points that are ranked; SMAC's default is 10,000
STARTS = 3  # of the local search; SMAC's default of 10 takes seconds
SEEDS = 2**31


class Smac(Method):
    """``smac``."""

    source = "smac"

    def __init__(self, space: SearchSpace, seed: int = 0, baseline: Mapping[str, Value] | None = None) -> None:
        super().__init__(space, seed, baseline)
        self._first = min(FIRST, 10 * space.dimensions)

    def propose(self, ask: int) -> Suggestion:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # SMAC's about its own seeds and small designs
            draws = self._challengers(ask)
            return Suggestion(self.unseen(lambda: next(draws), ask, REDRAWS), self.source)

    def _challengers(self, ask: int) -> Iterator[dict[str, Value]]:
        """The point of the first design, then what SMAC would try, best first, then uniform points."""
        random = self.stream(ask)
        if ask < self._first:
            yield self._decoded(self._design[ask])
        elif self.successes:
            scenario = self._scenario(int(random.integers(SEEDS)))
            yield from map(self._decoded, self._ranked(scenario))
        while True:
            yield self.space.from_unit(random.random(self.space.dimensions))

    @cached_property
    def _design(self) -> list[Configuration]:
        scenario = self._scenario(int(self.stream(0, "design").integers(SEEDS)))
        chosen: list[Configuration] = Facade.get_initial_design(
            scenario, n_configs=self._first, max_ratio=1.0
        ).select_configurations()
        # the same point twice is left out of a design: the space is small, and unseen() finds another
        return [chosen[i % len(chosen)] for i in range(self._first)]

    def _ranked(self, scenario: Scenario) -> Iterator[Configuration]:
        """Challengers by SMAC's expected improvement, with its share of random ones in between."""
        history, encoder = self._history(scenario.configspace), Facade.get_runhistory_encoder(scenario)
        encoder.runhistory = history
        x, y = encoder.transform()
        model = forest(scenario)
        model.train(x, y)
        improvement = Facade.get_acquisition_function(scenario)
        predicted = model.predict_marginalized(x)[0]
        improvement.update(model=model, eta=float(predicted.min()), num_data=len(x))
        maximizer = Facade.get_acquisition_maximizer(scenario, challengers=CHALLENGERS, local_search_iterations=STARTS)
        maximizer.acquisition_function = improvement
        found: Iterator[Configuration] = maximizer.maximize(
            history.get_configs(), random_design=Facade.get_random_design(scenario)
        )
        return found

    def _history(self, space: ConfigurationSpace) -> RunHistory:
        """What was told, a row for each time. Open asks count as running."""
        history = RunHistory()
        worst = max(told.value for told in self.successes if told.value is not None)
        for k, told in enumerate(self.told):
            good = told.value is not None
            status = StatusType.SUCCESS if good else StatusType.CRASHED
            cost = told.value if told.value is not None else worst
            history.add(self._encoded(space, told.params), cost=cost, status=status, seed=k)
        for suggestion in self.open.values():
            history.add(self._encoded(space, suggestion.params), cost=worst, status=StatusType.RUNNING, seed=-1)
        return history

    # --- SMAC's space -----------------------------------------------------------------------------------------------

    def _scenario(self, seed: int) -> Scenario:
        space = ConfigurationSpace(seed=seed)
        space.add([self._hyperparameter(i) for i in range(self.space.dimensions)])
        return Scenario(space, name="ask", output_directory=Path("unused"), deterministic=True, seed=seed)

    def _hyperparameter(self, i: int) -> Any:
        """A power of two by its exponent, a category by its index: ``True`` and ``1`` are different ones."""
        p, axis = self.space.params[i], self.space.axes[i]
        if axis.count is not None and (p.kind == "categorical" or axis.count == 1):
            return CategoricalHyperparameter(p.name, list(range(axis.count)))
        assert p.low is not None
        assert p.high is not None
        if p.power_of_two:
            assert axis.count is not None
            return UniformIntegerHyperparameter(p.name, 0, axis.count - 1)
        if p.kind == "int":
            values = axis.values()
            assert axis.count is not None
            low = int(axis.decode(0.0))
            return UniformIntegerHyperparameter(p.name, low, max(low + axis.count - 1, int(values[-1])), log=p.log)
        return UniformFloatHyperparameter(p.name, float(p.low), float(p.high), log=p.log)

    def _encoded(self, space: ConfigurationSpace, params: Mapping[str, Value]) -> Configuration:
        values: dict[str, Value] = {}
        for p, axis in zip(self.space.params, self.space.axes, strict=True):
            value = params[p.name]
            if p.kind == "categorical":
                value = round(axis.encode(value) * len(p.choices) - 0.5)
            elif axis.count == 1:
                value = 0
            elif p.power_of_two and axis.count is not None:
                value = round(axis.encode(value) * axis.count - 0.5)
            values[p.name] = int(value) if p.kind == "int" else value
        return Configuration(space, values=values)

    def _decoded(self, found: Configuration) -> dict[str, Value]:
        values: dict[str, Value] = {}
        for p, axis in zip(self.space.params, self.space.axes, strict=True):
            value = found[p.name]
            if p.kind == "categorical":
                values[p.name] = p.choices[int(value)]
            elif axis.count == 1 or p.power_of_two:
                assert axis.count is not None
                values[p.name] = axis.decode((int(value) + 0.5) / axis.count)
            else:
                values[p.name] = int(value) if p.kind == "int" else float(value)
        return self.space.from_unit(self.space.to_unit(values))


def forest(scenario: Scenario) -> RandomForest:
    """As SMAC's facade makes it, but in one thread, and without room for a million leaves, which takes a second."""
    return RandomForest(
        scenario.configspace,
        seed=scenario.seed,
        log_y=True,
        n_trees=10,
        ratio_features=1.0,
        min_samples_split=2,
        min_samples_leaf=1,
        max_depth=2**20,
        max_leaf_nodes=2**13,
        bootstrapping=True,
        n_jobs=1,
    )
