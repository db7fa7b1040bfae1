"""Bounds of hyperparameters, time budgets and data folders that are guessed from a script."""

import ast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.scaffold.guesses import bounds, hyperparameters_of, mounts_of, seconds_of
from agent.space.space import SearchSpace
from agent.types import Value

SETTINGS = """
DEPTH = 8
LR: float = 1e-3
BATCH = 2**19
WIDTH = 57
USE_BIAS = False
NAME = "gpt"
COMPUTED = DEPTH * 64
TWICE = 1
TWICE = 2
SEED = 42
def f(INNER=1):
    OTHER = 5
"""


def test_hyperparameters_are_constants_assigned_once() -> None:
    assert [constant.name for constant in hyperparameters_of(SETTINGS)] == ["DEPTH", "LR", "BATCH", "WIDTH", "USE_BIAS"]
    assert [constant.name for constant in hyperparameters_of("n_layer = 6\nseed = 1\nx = 2\n")] == ["n_layer"]


@pytest.mark.parametrize(
    ("name", "value", "keys"),
    [
        ("DEPTH", 8, ["low = 4", "high = 16"]),
        ("LR", 1e-3, ["low = 0.0001", "high = 0.01", "log = true"]),
        ("BATCH", 2**19, [f"low = {2**17}", f"high = {2**21}", "power_of_two = true"]),
        ("WIDTH", 57, ["low = 28", "high = 114"]),
        ("N_TREES", 64, ["low = 32", "high = 128"]),
        ("USE_BIAS", False, []),
        ("DROPOUT", 0.1, ["low = 0.0", "high = 0.5"]),
        ("attn_dropout", 0.0, ["low = 0.0", "high = 0.5"]),
        ("DROPOUT", 0.6, ["low = 0.0", "high = 1.0"]),
        ("BETA", 0.95, ["low = 0.8", "high = 0.9875"]),
        ("SUBSAMPLE", 0.8, ["low = 0.0", "high = 1.0"]),
        ("NAME", "gpt", None),
        ("ZERO", 0.0, None),
    ],
)
def test_bounds_around_value(name: str, value: Value, keys: list[str] | None) -> None:
    assert bounds(name, value) == keys


@given(
    st.one_of(st.integers(1, 10**9), st.floats(1e-9, 1e9)),
    st.sampled_from(["X", "LR", "BETA", "DROPOUT", "BATCH_SIZE", "RATIO"]),
)
def test_bounds_make_valid_space(tmp_path_factory: pytest.TempPathFactory, value: float, name: str) -> None:
    keys = bounds(name, value)
    assert keys
    path = tmp_path_factory.getbasetemp() / "target.toml"
    path.write_text(
        "\n".join(["[target]", 'editable = ["train.py"]', "[[hyperparameters]]", f'name = "{name}"', *keys])
    )
    space = SearchSpace.from_toml(path, source=f"{name} = {value!r}\n")
    assert space.params[0].default == value


@pytest.mark.parametrize(
    ("constant", "seconds"),
    [("TIME_BUDGET = 300", 600), ("MAX_MINUTES = 5", 600), ("train_hours = 0.5", 3600), ("MAX_SECONDS = 10", 70),
     ("LIMIT_TIME = 'long'", None)],
)  # fmt: skip
def test_budget_is_twice_the_constant(constant: str, seconds: float | None) -> None:
    found = seconds_of(ast.parse(constant))
    assert (found and found[0]) == seconds


PATHS = """
CACHE = os.path.join(os.path.expanduser("~"), ".cache", "autoresearch")
data = os.path.join(CACHE, "data")
other = Path.home() / "sets" / "c4"
name = "tiny"
unknown = os.path.join("cache", name, other())
corpus = os.path.join("data", name)
out_dir = "out"
loop = loop / "x"
"""


def test_mounts_are_home_or_ignored_folders() -> None:
    ignored = ["data/tiny/train.bin", "out/ckpt.pt"]
    assert mounts_of(ast.parse(PATHS), ignored) == ["data/tiny", "~/sets/c4", "~/.cache/autoresearch"]
