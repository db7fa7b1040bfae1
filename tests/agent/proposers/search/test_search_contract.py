"""What every search method promises, whoever draws its points."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import pytest
from places import ROOT
from search_models import Helper

from agent.errors import UsageError
from agent.proposers import METHODS, make_proposer
from agent.proposers.protocol import SuggestingMethod
from agent.proposers.search.cma import SIGMA
from agent.space.space import SearchSpace
from agent.types import Param, Value

FOURTEEN = SearchSpace.from_toml(ROOT / "nanogpt_target" / "target.toml")
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
Told = tuple[dict[str, Value], float | None, str]


def loss(params: Mapping[str, Value]) -> float:
    """Something with a minimum: every number near 70 % of its axis."""
    total = 1.0
    for value in params.values():
        number = float(len(value)) if isinstance(value, str) else float(value)
        total += 0.01 * (math.log1p(abs(number)) - 1.5) ** 2
    return total


@pytest.fixture(params=sorted(METHODS))
def make(request: pytest.FixtureRequest) -> Callable[..., SuggestingMethod]:
    if request.param == "smac":
        pytest.importorskip("smac", reason="the extra smac is not installed")

    def build(space: SearchSpace, seed: int = 0, **options: object) -> SuggestingMethod:
        llm = Helper(space) if METHODS[request.param][2] else None
        return make_proposer(request.param, space, seed=seed, llm=llm, **options)

    return build


def run(
    method: SuggestingMethod, trials: int, outcome: Callable[[dict[str, Value], int], tuple[float | None, str]]
) -> list[Told]:
    history = []
    for k in range(trials):
        params = method.ask()
        value, status = outcome(params, k)
        method.tell(params, value, status=status, memory_gb=10.0 + k)
        history.append((params, value, status))
    return history


def mostly_good(params: dict[str, Value], k: int) -> tuple[float | None, str]:
    return (None, "oom") if k % 5 == 3 else (loss(params), "ok")


@pytest.mark.parametrize("space", [FOURTEEN, ONE, CHOICES, MIXED], ids=["fourteen", "one", "choices", "mixed"])
def test_points_are_valid_and_never_repeat(make, space):
    method = make(space)
    trials = min(45, int(min(space.size, 1e6)) - 1)
    history = run(method, trials, mostly_good)
    assert [space.valid(params) for params, *_ in history] == [[]] * trials
    keys = [space.key(params) for params, *_ in history]
    assert len(set(keys)) == trials
    assert space.key(space.defaults) not in keys


@pytest.mark.parametrize("space", [FOURTEEN, CHOICES], ids=["fourteen", "choices"])
def test_the_same_seed_asks_the_same_and_another_does_not(make, space):
    def keys(seed: int) -> list[object]:
        return [params for params, *_ in run(make(space, seed), 14, mostly_good)]

    assert keys(3) == keys(3)
    assert keys(3) != keys(4)


def test_a_method_rebuilt_from_the_ledger_asks_the_same_next(make):
    """Three ways to the same state: lived through, asked and told again, and replayed without asking anew."""
    lived, again, replayed = make(MIXED, 7), make(MIXED, 7), make(MIXED, 7)
    for k in range(33):
        suggestion = lived.suggest()
        assert again.suggest() == suggestion
        replayed.replay(suggestion)
        value, status = mostly_good(dict(suggestion.params), k)
        for method in (lived, again, replayed):
            method.tell(suggestion.params, value, status=status, memory_gb=1.0)
    open_ask = lived.suggest()  # killed between ask and tell
    assert again.suggest() == open_ask
    replayed.replay(open_ask)
    assert lived.suggest() == again.suggest() == replayed.suggest()


def test_points_that_were_never_asked_may_be_told(make):
    first, second = make(FOURTEEN), make(FOURTEEN)
    for k in range(30):
        params = FOURTEEN.repair({"DEPTH": 4 + k % 20, "MATRIX_LR": 0.01 + 0.001 * k})
        for method in (first, second):
            method.tell(params, loss(params), n=2)
    assert first.ask() == second.ask()
    params = first.ask()
    assert FOURTEEN.valid(params) == []


def test_several_asks_are_open_and_told_in_another_order(make):
    method = make(MIXED)
    waiting: list[dict[str, Value]] = []
    asked = []
    for k in range(40):
        params = method.ask()
        asked.append(MIXED.key(params))
        waiting.append(params)
        if k % 3 == 2:  # two of four workers answer, the latest first; the first ask comes very late
            for done in (waiting.pop(), waiting.pop()):
                method.tell(done, loss(done))
    for late in waiting:
        method.tell(late, loss(late))
    assert len(set(asked)) == 40
    assert MIXED.valid(method.ask()) == []


@pytest.mark.parametrize("status", ["oom", "crash", "diverged", "timeout", "patch_rejected"])
def test_nothing_but_failures(make, status):
    method = make(FOURTEEN)
    history = run(method, 30, lambda params, k: (None, status))
    assert all(FOURTEEN.valid(params) == [] for params, *_ in history)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_values_that_are_not_finite_are_failures(make, value):
    odd, failed = make(MIXED), make(MIXED)
    for k in range(26):
        params = odd.ask()
        assert failed.ask() == params
        bad = k % 3 == 1
        odd.tell(params, value if bad else loss(params))
        failed.tell(params, None if bad else loss(params), status="failed" if bad else "ok")
    assert odd.ask() == failed.ask()


def test_a_value_of_a_failed_run_does_not_count(make):
    one, other = make(MIXED), make(MIXED)
    for k in range(26):
        params = one.ask()
        assert other.ask() == params
        status = "invalid" if k % 4 == 1 else "ok"
        one.tell(params, -100.0 if status != "ok" else loss(params), status=status)
        other.tell(params, None if status != "ok" else loss(params), status=status)
    assert one.ask() == other.ask()


def test_a_space_with_nothing_new_left_still_answers(make):
    space = SearchSpace(CHOICES.params[:2])
    method = make(space)
    history = run(method, 9, mostly_good)
    first = {space.key(params) for params, *_ in history[:5]}
    assert len(first - {space.key(space.defaults)}) == 5  # 3 · 2, less the defaults
    assert all(space.valid(params) == [] for params, *_ in history)


@pytest.mark.parametrize("name", ["cma-es", "cma-gp", "tpe", "random"])
def test_a_small_corner_that_constraints_leave_is_searched_without_repeating(name):
    """Uniform points are moved to the same few of its 286 configurations."""
    corner = [Param(name, "float", 0.001, 0.0, 1.0) for name in "ABC"]
    space = SearchSpace(corner, ["A + B + C <= 0.01"])
    history = run(make_proposer(name, space), 40, mostly_good)
    assert len({space.key(params) for params, *_ in history}) == 40


def test_told_twice_and_told_the_baseline(make):
    method = make(MIXED)
    for _ in range(3):
        method.tell(MIXED.defaults, loss(MIXED.defaults), n=3)
    params = method.ask()
    for _ in range(12):
        method.tell(params, loss(params))
    assert MIXED.key(method.ask()) != MIXED.key(params)


def test_told_parameters_are_not_touched_or_kept(make):
    method = make(MIXED)
    params = method.ask()
    before = dict(params)
    method.tell(params, 1.0)
    assert params == before
    params["RATE"] = 0.5
    assert MIXED.valid(method.ask()) == []


def test_the_search_starts_at_the_baseline_that_is_given(make):
    baseline = MIXED.repair({"RATE": 0.1, "DEPTH": 4})
    method = make(MIXED, baseline=baseline)
    asked = [method.ask() for _ in range(6)]
    assert MIXED.key(baseline) not in [MIXED.key(params) for params in asked]
    with pytest.raises(UsageError, match="RATE = 7 is outside"):
        make(MIXED, baseline=MIXED.defaults | {"RATE": 7})


def test_told_configurations_must_be_of_this_space(make):
    method = make(MIXED)
    with pytest.raises(UsageError, match="DEPTH is missing"):
        method.tell({"RATE": 0.1}, 1.0)
    with pytest.raises(UsageError, match="does not hold"):
        method.tell(MIXED.defaults | {"DEPTH": 16, "ROWS": 256}, 1.0)


def test_cma_es_says_where_it_stands() -> None:
    method = make_proposer("cma-es", FOURTEEN, seed=0)
    first = method.suggest().search
    assert first["step"] == pytest.approx(SIGMA)
    assert first["shortest"] == pytest.approx(first["longest"]) == first["step"]
    for _ in range(30):
        params = method.suggest().params
        method.tell(params, loss(params))
    later = method.suggest().search
    assert later["generation"] > first["generation"] == 0
    assert later["shortest"] < later["longest"]


def test_centaur_says_how_much_is_the_models() -> None:
    method = make_proposer("centaur", FOURTEEN, seed=0, llm=Helper(FOURTEEN))
    assert 0.0 < method.suggest().search["model_share"] < 1.0


def test_a_search_of_choices_alone_has_no_step() -> None:
    assert make_proposer("cma-es", CHOICES, seed=0).suggest().search == {}
