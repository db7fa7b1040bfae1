"""The model of failed trials."""

from __future__ import annotations

import numpy as np
import pytest

from agent.proposers import make_proposer
from agent.proposers.search.failure_model import BOUND, OWN, SAFEST
from agent.space.space import SearchSpace
from agent.types import Param

SPACE = SearchSpace(
    [
        Param("RATE", "float", 0.3, 0.0, 1.0),
        Param("WIDTH", "float", 0.3, 0.0, 1.0),
        Param("KIND", "categorical", "a", choices=("a", "b", "c")),
    ]
)


def observed(fails, count=60, status="oom", memory=None):
    """A method with results of uniform points, which fail where ``fails`` is true."""
    method, random = make_proposer("cma-es", SPACE), np.random.default_rng(1)
    for _ in range(count):
        params = SPACE.from_unit(random.random(3))
        bad = fails(params)
        value = None if bad else float(params["RATE"])
        method.tell(params, value, status=status if bad else "ok", memory_gb=memory(params) if memory else None)
    return method


def success(method, **values):
    point = SPACE.to_unit(SPACE.defaults | values)
    return float(method.failures().success_probability([point])[0])


@pytest.mark.parametrize(
    "memory", [None, lambda params: 10 * (1 + float(params["WIDTH"]))], ids=["unknown", "reported"]
)
def test_boundary_is_learned_from_failures(memory):
    method = observed(lambda params: params["WIDTH"] > 0.6, memory=memory)
    assert success(method, WIDTH=0.1) > 0.9
    assert success(method, WIDTH=0.95) < 0.1


def test_each_kind_has_its_own_boundary():
    method = observed(lambda params: params["WIDTH"] > 0.7)
    for k in range(15):
        method.tell(SPACE.defaults | {"RATE": 0.8 + 0.01 * k}, None, status="diverged")
    assert success(method, WIDTH=0.95) < 0.3
    assert success(method, RATE=0.95) < 0.3
    assert success(method) > 0.8


def test_failing_category_is_avoided():
    method = observed(lambda params: params["KIND"] == "b")
    assert success(method, KIND="b") < 0.2
    assert success(method, KIND="c") > 0.8


def test_without_failures_everything_is_admissible():
    method = observed(lambda params: False)
    assert success(method, WIDTH=1.0) == 1.0
    assert method.failures().admissible(np.ones(8)).all()


def test_safest_points_are_always_admissible():
    method = observed(lambda params: params["WIDTH"] > 0.6)
    for _ in range(40):
        method.tell(method.ask(), None, status="oom")
    assert method.failures().admissible(np.linspace(0.1, 0.2, 64)).sum() == 64 * SAFEST


def test_best_point_stays_admissible_after_failures():
    method = observed(lambda params: params["WIDTH"] > 0.6)
    for _ in range(40):
        method.tell(method.ask(), None, status="diverged")
    failures = method.failures()
    assert failures.threshold(OWN) > 0.9
    success = np.linspace(0.6, 0.9, 64)
    assert failures.admissible(success).sum() == 64 * SAFEST
    assert failures.admissible(success, known=0.8).sum() == np.sum(success >= 0.8)
    assert failures.admissible(success, known=0.1).sum() == np.sum(success >= BOUND)


@pytest.mark.parametrize("seed", range(2))
def test_random_failures_are_ignored(seed):
    method, random = make_proposer("cma-es", SPACE, seed), np.random.default_rng(seed)
    for _ in range(150):
        params = method.ask()
        bad = random.random() < 0.15
        value = 1.0 + (float(params["RATE"]) - 0.8) ** 2
        method.tell(params, None if bad else value, status="crash" if bad else "ok")
    assert method.failures().admissible(np.linspace(0.8, 0.9, 64)).all()
    assert success(method, WIDTH=0.9) > 0.9
    assert float(method.best.params["RATE"]) > 0.7


def test_boundary_is_found_beside_random_failures():
    random = np.random.default_rng(1)
    method = observed(lambda params: params["WIDTH"] > 0.6)
    for _ in range(60):
        params = SPACE.from_unit(random.random(3) * [1.0, 0.5, 1.0])
        bad = random.random() < 0.15
        method.tell(params, None if bad else 1.0, status="crash" if bad else "ok")
    assert success(method, WIDTH=0.95) < 0.1
    assert success(method, WIDTH=0.1) > 0.9


@pytest.mark.parametrize("name", ["cma-es", "cma-gp"])
def test_optimum_at_failure_boundary_costs_few_trials(name):
    method, failed = make_proposer(name, SPACE, seed=2), []
    for _ in range(120):
        params = method.ask()
        bad = float(params["RATE"]) + float(params["WIDTH"]) > 1.0
        failed.append(bad)
        value = 2.0 - float(params["RATE"]) - 0.5 * float(params["WIDTH"])
        method.tell(params, None if bad else value, status="diverged" if bad else "ok")
    assert sum(failed[50:]) <= 7
    assert method.best.value < 1.3
