"""The contract of every search method. Copy this file for a method of your own: replace ``make`` and delete the rest.

Each test takes ``make(space, seed, **options)``, which builds one method of ``METHODS``.
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from places import ROOT
from search_models import Helper

from agent.errors import UsageError
from agent.proposers import METHODS, make_proposer
from agent.proposers.search.base import Method
from agent.space.space import SearchSpace
from agent.types import Param, Value

Make = Callable[..., Method]
Result = tuple[float | None, str]  # value and status

NANOGPT = SearchSpace.from_toml(ROOT / "nanogpt_target" / "target.toml")
ONE = SearchSpace([Param("RATE", "float", 0.01, 1e-4, 1.0, log=True)])
CHOICES = SearchSpace(
    [
        Param("PATTERN", "categorical", "SL", choices=("SL", "LL", "SS")),
        Param("TIED", "categorical", True, choices=(False, True)),
        Param("WIDTH", "categorical", 64, choices=(32, 64, 128)),
    ]
)
MIXED = SearchSpace(
    [
        Param("RATE", "float", 0.01, 1e-4, 1.0, log=True),
        Param("SHARE", "float", 0.0, 0.0, 0.5),
        Param("DEPTH", "int", 8, 2, 16),
        Param("ROWS", "int", 32, 8, 256, power_of_two=True),
        Param("PATTERN", "categorical", "SL", choices=("SL", "LL", "SS")),
    ],
    ["DEPTH * ROWS <= 512"],
)
TRIALS = 29  # screening by a Gaussian process starts after 15 successes


def loss(params: Mapping[str, Value]) -> float:
    numbers = [len(value) if isinstance(value, str) else float(value) for value in params.values()]
    return 1.0 + 0.01 * sum((math.log1p(abs(number)) - 1.5) ** 2 for number in numbers)


def one_failure(params: Mapping[str, Value], trial: int) -> Result:
    return (None, "oom") if trial == 3 else (loss(params), "ok")


@pytest.fixture(params=sorted(METHODS))
def make(request: pytest.FixtureRequest) -> Make:
    if request.param == "smac":
        pytest.importorskip("smac", reason="the extra smac is not installed")

    def build(space: SearchSpace, seed: int = 0, **options: Any) -> Method:
        llm = Helper(space) if METHODS[request.param][2] else None
        return make_proposer(request.param, space, seed=seed, llm=llm, **options)

    return build


def run(method: Method, trials: int, result: Callable[[Mapping[str, Value], int], Result]) -> list[dict[str, Value]]:
    """Ask and tell ``trials`` times; return the points."""
    points = []
    for trial in range(trials):
        points.append(method.ask())
        value, status = result(points[-1], trial)
        method.tell(points[-1], value, status=status, memory_gb=10.0 + trial)
    return points


@pytest.mark.parametrize("space", [NANOGPT, ONE, CHOICES, MIXED], ids=["nanogpt", "one", "choices", "mixed"])
def test_points_are_valid_and_new(make: Make, space: SearchSpace) -> None:
    trials = int(min(space.size - 1, TRIALS))
    points = run(make(space), trials, one_failure)
    assert [space.valid(point) for point in points] == [[]] * trials
    assert len({space.key(space.defaults), *map(space.key, points)}) == trials + 1


@pytest.mark.parametrize("space", [NANOGPT, CHOICES], ids=["nanogpt", "choices"])
def test_seed_determines_the_points(make: Make, space: SearchSpace) -> None:
    one, same, other = (run(make(space, seed), 8, one_failure) for seed in (3, 3, 4))
    assert one == same
    assert one != other


def test_replay_restores_the_next_ask(make: Make) -> None:
    lived, replayed = make(MIXED, 7), make(MIXED, 7)
    for trial in range(TRIALS):
        suggestion = lived.suggest()
        replayed.replay(suggestion)
        value, status = one_failure(suggestion.params, trial)
        for method in (lived, replayed):
            method.tell(suggestion.params, value, status=status, memory_gb=1.0)
    replayed.replay(lived.suggest())  # killed between ask and tell
    assert lived.suggest() == replayed.suggest()


def test_points_never_asked_can_be_told(make: Make) -> None:
    first, second = make(NANOGPT), make(NANOGPT)
    for k in range(TRIALS):
        params = NANOGPT.defaults | {"DEPTH": 4 + k % 20, "MATRIX_LR": 0.01 + 0.001 * k}
        for method in (first, second):
            method.tell(params, loss(params), n=2)
    assert first.ask() == second.ask()


def test_open_asks_can_be_told_in_any_order(make: Make) -> None:
    method = make(MIXED)
    waiting: list[dict[str, Value]] = []
    asked = set()
    for k in range(36):
        waiting.append(method.ask())
        asked.add(MIXED.key(waiting[-1]))
        if k % 3 == 2:  # the first ask stays open for long
            for _ in range(2):
                params = waiting.pop()
                method.tell(params, loss(params))
    assert len(asked) == 36


@pytest.mark.parametrize("status", ["oom", "patch_rejected"])
def test_search_goes_on_when_all_trials_fail(make: Make, status: str) -> None:
    points = run(make(NANOGPT), 14, lambda params, trial: (None, status))
    assert all(NANOGPT.valid(point) == [] for point in points)


@pytest.mark.parametrize(
    ("value", "status"), [(math.nan, "ok"), (math.inf, "ok"), (-math.inf, "ok"), (-100.0, "failed")]
)
def test_unusable_values_are_failures(make: Make, value: float, status: str) -> None:
    odd, failed = make(MIXED), make(MIXED)
    for trial in range(12):
        params = odd.ask()
        assert failed.ask() == params
        bad = trial % 3 == 1
        odd.tell(params, value if bad else loss(params), status=status if bad else "ok")
        failed.tell(params, None if bad else loss(params), status="failed" if bad else "ok")
    assert odd.ask() == failed.ask()


def test_repeated_tells_do_not_repeat_asks(make: Make) -> None:
    method = make(MIXED)
    params = method.ask()
    for point in (MIXED.defaults, params):
        for _ in range(3):
            method.tell(point, loss(point), n=3)
    assert MIXED.key(method.ask()) not in {MIXED.key(params), MIXED.key(MIXED.defaults)}


def test_told_parameters_are_copied(make: Make) -> None:
    method = make(MIXED)
    params = method.ask()
    before = dict(params)
    method.tell(params, 1.0)
    assert params == before
    params["RATE"] = 7.0
    assert MIXED.valid(method.ask()) == []


def test_baseline_is_never_proposed(make: Make) -> None:
    baseline = MIXED.defaults | {"RATE": 0.1, "DEPTH": 4}
    method = make(MIXED, baseline=baseline)
    assert MIXED.key(baseline) not in [MIXED.key(method.ask()) for _ in range(6)]
    with pytest.raises(UsageError, match="RATE"):
        make(MIXED, baseline=MIXED.defaults | {"RATE": 7})


def test_tell_rejects_points_outside_the_space(make: Make) -> None:
    method = make(MIXED)
    with pytest.raises(UsageError, match="DEPTH"):
        method.tell({"RATE": 0.1}, 1.0)
    with pytest.raises(UsageError, match="DEPTH"):
        method.tell(MIXED.defaults | {"DEPTH": 16, "ROWS": 256}, 1.0)


@pytest.mark.parametrize("name", ["cma-es", "random"])
def test_small_feasible_corner_is_searched_without_repeats(name: str) -> None:
    corner = [Param(name, "float", 0.001, 0.0, 1.0) for name in "ABC"]
    space = SearchSpace(corner, ["A + B + C <= 0.01"])  # 286 configurations
    points = run(make_proposer(name, space), 20, one_failure)
    assert len({space.key(point) for point in points}) == 20


def test_smac_does_not_depend_on_hash_seed() -> None:
    pytest.importorskip("smac", reason="the extra smac is not installed")
    script = "from test_search_contract import *; print(run(make_proposer('smac', ONE), 13, one_failure)[-3:])"
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests" / "support"), str(Path(__file__).parent)])
    environments = [{**os.environ, "PYTHONPATH": paths, "PYTHONHASHSEED": seed} for seed in "12"]
    one, two = (
        subprocess.run([sys.executable, "-c", script], env=given, capture_output=True, text=True, check=True).stdout
        for given in environments
    )
    assert one == two
