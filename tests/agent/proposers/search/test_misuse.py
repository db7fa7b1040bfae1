"""Unusual arguments of ask and tell: numpy scalars, wrong types, failing advisers."""

from __future__ import annotations

import json
import math
import warnings

import numpy as np
import pytest

from agent.errors import ReplyRejected, UsageError
from agent.llm.chat import Reply
from agent.proposers import make_proposer
from agent.proposers.search.failure_model import failure_kinds
from agent.space.block import read_block
from agent.space.space import SearchSpace
from agent.types import Param

SPACE = SearchSpace(
    [
        Param("RATE", "float", 0.01, 1e-4, 1.0, log=True),
        Param("DEPTH", "int", 8, 2, 16),
        Param("ROWS", "int", 32, 8, 256, power_of_two=True),
        Param("PATTERN", "categorical", "SL", choices=("SL", "LL", "SS")),
        Param("TIED", "categorical", True, choices=(False, True)),
    ],
    ["DEPTH * ROWS <= 512"],
)
PLAIN = {"RATE": 0.02, "DEPTH": 9, "ROWS": 16, "PATTERN": "LL", "TIED": False}
NUMPY = {
    "RATE": np.float64(0.02),
    "DEPTH": np.int64(9),
    "ROWS": np.int32(16),
    "PATTERN": np.str_("LL"),
    "TIED": np.bool_(False),
}
METHODS = ["cma-es", "cma-gp", "tpe"]


@pytest.mark.parametrize("name", METHODS)
def test_numpy_scalars_equal_python_scalars(name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ours = make_proposer(name, SPACE, seed=3, baseline=PLAIN)
        theirs = make_proposer(name, SPACE, seed=np.int64(3), baseline=NUMPY)
        for k in range(20):
            params = ours.ask()
            assert theirs.ask() == params
            ours.tell(params, 1.0 + k, n=2, memory_gb=3.0)
            given = {key: np.asarray(value)[()] for key, value in params.items()}
            theirs.tell(given, np.float64(1.0 + k), n=np.int64(2), memory_gb=np.float32(3.0))
        assert theirs.ask() == ours.ask()
    assert all(type(value) in (int, float, str, bool) for seen in theirs.observations for value in seen.params.values())


def test_render_writes_python_literals():
    text = SPACE.render(SPACE.block, NUMPY)
    assert SPACE.read(text) == PLAIN
    whole = SPACE.render(SPACE.block, PLAIN | {"DEPTH": 9.0, "ROWS": 16.0, "RATE": 1})
    entries = read_block(whole)
    assert [entries[name].text for name in ("DEPTH", "ROWS", "RATE")] == ["9", "16", "1.0"]


@pytest.mark.parametrize("value", [math.nan, 2.0, "fast", None, True])
def test_render_rejects_invalid_values(value):
    with pytest.raises(UsageError, match="RATE = "):
        SPACE.render(SPACE.block, {"RATE": value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DEPTH", True), ("DEPTH", 10**400), ("DEPTH", "8"), ("DEPTH", 8.5), ("ROWS", 0), ("ROWS", 12), ("TIED", 1),
        ("RATE", None), ("RATE", [0.1]), ("RATE", 1j), ("RATE", -0.1),
        ("PATTERN", ["SL"]), ("PATTERN", np.array(["SL", "LL"])),
    ],
)  # fmt: skip
def test_invalid_point_changes_nothing(name, value):
    method, untouched = (make_proposer("cma-es", SPACE) for _ in range(2))
    with pytest.raises(UsageError, match=name):
        method.tell(SPACE.defaults | {name: value}, 1.0)
    assert method.ask() == untouched.ask()


@pytest.mark.parametrize("value", ["1.0", [1.0], 1j, object()])
def test_non_numeric_value_raises(value):
    method = make_proposer("cma-es", SPACE)
    with pytest.raises(UsageError, match="not a number"):
        method.tell(method.ask(), value)
    assert method.observations == []


def test_value_beyond_float_is_a_failure():
    method = make_proposer("cma-es", SPACE)
    method.tell(method.ask(), 10**400)
    assert method.observations[0].value is None


@pytest.mark.parametrize("statuses", [("oom", None), ("", "crash"), (7, "oom")])
def test_any_status_is_a_failure(statuses):
    method = make_proposer("cma-es", SPACE)
    for k in range(30):
        method.tell(method.ask(), None, status=statuses[k % len(statuses)])
    assert SPACE.valid(method.ask()) == []


def test_rare_statuses_share_one_boundary():
    method = make_proposer("cma-es", SPACE)
    for k in range(40):
        params = method.ask()
        failed = k % 2 == 0
        method.tell(params, None if failed else 1.0 + k, status=f"exit code {k}" if failed else "ok")
    assert len(set(failure_kinds(method.observations).values())) <= 8


@pytest.mark.parametrize("seed", [-1, 2**80, np.uint64(2**63 + 5), np.int32(7)])
def test_any_integer_is_a_seed(seed):
    assert make_proposer("cma-gp", SPACE, seed=seed).ask() == make_proposer("cma-gp", SPACE, seed=int(seed)).ask()


@pytest.mark.parametrize("seed", [None, 1.5, "x"])
def test_other_seeds_raise(seed):
    with pytest.raises(UsageError, match="seed"):
        make_proposer("cma-es", SPACE, seed=seed)


@pytest.mark.parametrize("name", ["cmaes", "", None, 3])
def test_unknown_method_raises(name):
    with pytest.raises(UsageError, match="search method = "):
        make_proposer(name, SPACE)


# --- advisers ---


@pytest.mark.parametrize("llm", [object(), "http://localhost:8000", 3])
def test_llm_without_chat_interface_raises(llm):
    with pytest.raises(UsageError, match="complete"):
        make_proposer("centaur", SPACE, llm=llm)


def test_function_can_be_the_adviser():
    def advise(messages):
        assert "RATE" in messages[0]["content"]
        return json.dumps(PLAIN)

    method = make_proposer("hparams", SPACE, llm=advise, reply="json")
    suggestion = method.suggest()
    assert (suggestion.params, suggestion.source) == (PLAIN, "llm")


@pytest.mark.parametrize("answer", ["", "no idea", "{}", "{", '{"RATE": 7}', '{"RATE": NaN}', "[]", "null", None, 3])
def test_unusable_answer_costs_one_turn(answer):
    method = make_proposer("centaur", SPACE, llm=lambda messages: answer, reply="json", share=0.5)
    lost, given = 0, []
    for k in range(20):
        try:
            given.append(method.suggest())
        except ReplyRejected:
            lost += 1
            continue
        method.tell(given[-1].params, 1.0 + k)
    assert lost == 5  # half of the ten after the warm-up
    assert {suggestion.source for suggestion in given} == {"cma"}


def test_adviser_exception_leaves_ask_repeatable():
    broken = True

    class Adviser:
        def complete(self, messages, **options):
            if broken:
                raise RuntimeError("out of order")
            return Reply(json.dumps(PLAIN))

        def describe(self):
            from agent.llm.chat import ModelInfo

            return ModelInfo("mine")

        def count_tokens(self, messages):
            return 0

    method = make_proposer("hparams", SPACE, llm=Adviser(), reply="json")
    with pytest.raises(RuntimeError, match="out of order"):
        method.ask()
    broken = False
    assert method.ask() == PLAIN
    assert method.asks == 1


def test_tpe_separates_true_from_one():
    pytest.importorskip("optuna")
    space = SearchSpace([Param("TIED", "categorical", True, choices=(True, 1))])
    search = make_proposer("tpe", space)
    trials = [search.trial({"TIED": value}, 1.0) for value in (True, 1)]
    assert trials[0].params != trials[1].params
