"""The model of peak memory and its limit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.proposers import make_proposer
from agent.proposers.search.base import successes
from agent.proposers.search.failure_model import log_features
from agent.proposers.search.memory_model import REPORTS, MemoryModel
from agent.space.space import SearchSpace
from agent.types import Param

SPACE = SearchSpace(
    [
        Param("DEPTH", "int", 8, 2, 32),
        Param("BATCH", "int", 16, 4, 256, log=True, power_of_two=True),
        Param("RATE", "float", 0.01, 0.001, 0.1, log=True),
        Param("DECAY", "float", 0.1, 0.0, 0.5),
        Param("KIND", "categorical", "a", choices=("a", "b")),
    ]
)
LIMIT = 40.0  # GB


def gigabytes(params):
    return 1.0 + 0.03 * float(params["DEPTH"]) ** 1.3 * float(params["BATCH"]) ** 0.9


def searched(name, trials, reports=True, fails=lambda params, random: gigabytes(params) > LIMIT):
    """A search whose value falls with the memory."""
    method, random = make_proposer(name, SPACE), np.random.default_rng(1)
    for _ in range(trials):
        params = method.ask()
        bad = fails(params, random)
        value = None if bad else 3.0 - 0.01 * gigabytes(params) + 0.1 * abs(np.log(float(params["RATE"]) / 0.03))
        memory = min(gigabytes(params), LIMIT) * (1.0 + 0.01 * random.standard_normal()) if reports else None
        method.tell(params, value, status="oom" if bad else "ok", memory_gb=memory)
    return method


def failures(method):
    return [o for o in method.observations if o.value is None]


def success(method, **values):
    point = SPACE.to_unit(SPACE.defaults | values)
    return float(method.failures().success_probability([point])[0])


def test_limit_is_found_from_few_failures():
    method = make_proposer("cma-es", SPACE)
    random = np.random.default_rng(0)
    while len(successes(method.observations)) < 25 or not failures(method):
        params = SPACE.from_unit(random.random(SPACE.dimensions))
        bad = gigabytes(params) > LIMIT
        method.tell(
            params, None if bad else 1.0, status="oom" if bad else "ok", memory_gb=min(gigabytes(params), LIMIT)
        )
    for batch in (16, 64, 256):
        depth = ((LIMIT - 1.0) / 0.03 / batch**0.9) ** (1 / 1.3)
        inside, outside = int(depth / 1.3), int(depth * 1.3) + 1
        assert success(method, BATCH=batch, DEPTH=max(inside, 2)) > 0.9
        if outside <= 32:
            assert success(method, BATCH=batch, DEPTH=outside) < 0.1


@pytest.mark.parametrize("name", ["cma-es", "cma-gp"])
def test_optimum_at_memory_limit_is_approached_with_few_failures(name):
    method = searched(name, 100)
    assert len(failures(method)) <= 6
    assert max(gigabytes(o.params) for o in successes(method.observations)) > 0.9 * LIMIT


def test_memory_reports_prevent_failures():
    assert len(failures(searched("cma-gp", 100))) < len(failures(searched("cma-gp", 100, reports=False)))


def test_random_failures_out_of_memory_are_ignored():
    method = searched("cma-es", 100, fails=lambda params, random: random.random() < 0.15)
    assert len(failures(method)) > 8
    assert success(method, DEPTH=24) > 0.85


def test_reports_of_crashes_are_no_peaks():
    method = searched("cma-es", 60)
    for seed in range(5):
        method.tell(SPACE.from_unit(np.random.default_rng(seed).random(5)), None, status="crash", memory_gb=0.2)
    assert success(method, BATCH=64, DEPTH=10) > 0.8  # 26 GB
    assert success(method, BATCH=64, DEPTH=18) < 0.1  # 55 GB


@settings(deadline=None, max_examples=50)
@given(st.lists(st.floats(1e-6, 1e9), min_size=REPORTS, max_size=40), st.integers(0, 99), st.integers(1, 12))
def test_any_reports_give_probabilities(memory, seed, starved):
    random = np.random.default_rng(seed)
    x = random.random((len(memory), 4)) * [1.0, 1.0, 0.0, 1e-9]
    model = MemoryModel(x, np.array(memory), random.random((starved, 4)))
    chance = model.predict(random.random((30, 4)))
    assert np.all((chance >= 0.0) & (chance <= 1.0))
    assert np.isfinite(model.evidence)


def test_log_features_span_the_same_range():
    ends = log_features(SPACE, [np.zeros(5), np.ones(5)])
    assert ends[:, :4].tolist() == [[0.0] * 4, [1.0] * 4]
    middle = log_features(SPACE, [np.full(5, 0.5)])[0]
    assert middle[0] > 0.7  # DEPTH 17 of 2 to 32
    assert middle[1:4].tolist() == [0.5] * 3
