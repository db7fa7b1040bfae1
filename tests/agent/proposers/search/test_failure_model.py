"""What CMA-ES makes of failures."""

from __future__ import annotations

import numpy as np
import pytest

from agent.proposers import make_proposer
from agent.proposers.search.failure_model import SAFEST
from agent.space.space import SearchSpace
from agent.types import Param

SPACE = SearchSpace(
    [
        Param("RATE", "float", 0.3, 0.0, 1.0),
        Param("WIDTH", "float", 0.3, 0.0, 1.0),
        Param("KIND", "categorical", "a", choices=("a", "b", "c")),
    ]
)


def told(fails, count=60, status="oom", memory=None):
    """A method that was told uniform points, with the failures that ``fails`` says."""
    method, random = make_proposer("cma-es", SPACE), np.random.default_rng(1)
    for _ in range(count):
        params = SPACE.from_unit(random.random(3))
        bad = fails(params)
        value = None if bad else float(params["RATE"])
        method.tell(params, value, status=status if bad else "ok", memory_gb=memory(params) if memory else None)
    return method


def chance(method, **values):
    point = SPACE.to_unit(SPACE.defaults | values)
    return float(method.failures().chance([point])[0])


@pytest.mark.parametrize(
    "memory", [None, lambda params: 10 * (1 + float(params["WIDTH"]))], ids=["unknown", "reported"]
)
def test_a_boundary_is_learned_from_failures(memory):
    method = told(lambda params: params["WIDTH"] > 0.6, memory=memory)
    assert chance(method, WIDTH=0.1) > 0.9
    assert chance(method, WIDTH=0.95) < 0.1


def test_kinds_of_failure_have_boundaries_of_their_own():
    method = told(lambda params: params["WIDTH"] > 0.7)
    for k in range(15):
        method.tell(SPACE.defaults | {"RATE": 0.8 + 0.01 * k}, None, status="diverged")
    assert chance(method, WIDTH=0.95) < 0.3
    assert chance(method, RATE=0.95) < 0.3
    assert chance(method) > 0.8


def test_a_category_that_always_fails_is_left_alone():
    method = told(lambda params: params["KIND"] == "b")
    assert chance(method, KIND="b") < 0.2
    assert chance(method, KIND="c") > 0.8


def test_without_failures_nothing_changes():
    method = told(lambda params: False)
    assert chance(method, WIDTH=1.0) == 1.0
    assert method.failures().allowed(np.ones(8), 0.3, 0.5).all()


def test_some_points_may_always_be_tried():
    method = told(lambda params: params["WIDTH"] > 0.6)
    for _ in range(40):
        method.tell(method.ask(), None, status="oom")
    assert method.failures().allowed(np.linspace(0.1, 0.2, 64), 0.3, 0.5).sum() == 64 * SAFEST


@pytest.mark.parametrize("seed", range(3))
def test_failures_that_strike_at_random_neither_repel_nor_make_careful(seed):
    method, random = make_proposer("cma-es", SPACE, seed), np.random.default_rng(seed)
    for _ in range(150):
        params = method.ask()
        bad = random.random() < 0.15
        value = 1.0 + (float(params["RATE"]) - 0.8) ** 2
        method.tell(params, None if bad else value, status="crash" if bad else "ok")
    assert method.failures().allowed(np.linspace(0.8, 0.9, 64), 0.3, 0.5).all()
    assert chance(method, WIDTH=0.9) > 0.9
    assert float(method.best.params["RATE"]) > 0.7


def test_random_failures_do_not_hide_a_boundary():
    random = np.random.default_rng(1)
    method = told(lambda params: params["WIDTH"] > 0.6)
    for _ in range(60):
        params = SPACE.from_unit(random.random(3) * [1.0, 0.5, 1.0])
        bad = random.random() < 0.15
        method.tell(params, None if bad else 1.0, status="crash" if bad else "ok")
    assert chance(method, WIDTH=0.95) < 0.1
    assert chance(method, WIDTH=0.1) > 0.9


@pytest.mark.parametrize("name", ["cma-es", "cma-gp"])
def test_a_best_value_at_the_edge_of_failure_costs_few_trials(name):
    method, failed = make_proposer(name, SPACE, seed=2), []
    for _ in range(120):
        params = method.ask()
        bad = float(params["RATE"]) + float(params["WIDTH"]) > 1.0
        failed.append(bad)
        value = 2.0 - float(params["RATE"]) - 0.5 * float(params["WIDTH"])
        method.tell(params, None if bad else value, status="diverged" if bad else "ok")
    assert sum(failed[50:]) <= 7
    assert method.best.value < 1.3
