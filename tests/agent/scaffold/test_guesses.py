"""Bounds of hyperparameters, edits of the seed and data folders that are guessed from a script."""

import ast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.scaffold.guesses import bounds, hyperparameters_of, mounts_of, seed_edits
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
    assert mounts_of(ast.parse(PATHS), ignored) == ["data/tiny", "~/.cache/autoresearch", "~/sets/c4"]


READ = 'int(os.environ.get("OVERNIGHT_SEED", "42"))'


@pytest.mark.parametrize(
    ("line", "edited"),
    [
        ("SEED = 42", f"SEED = {READ}"),
        ("seed: int = 42  # of everything", f"seed: int = {READ}"),
        ("torch.manual_seed(42)", f"torch.manual_seed({READ})"),
        ("torch.manual_seed(42 + seed_offset)", f"torch.manual_seed({READ} + seed_offset)"),
        ("rng = np.random.default_rng(42)", f"rng = np.random.default_rng({READ})"),
        ("key = jax.random.PRNGKey(42)", f"key = jax.random.PRNGKey({READ})"),
        ("model = Forest(n=3, random_state=42)", f"model = Forest(n=3, random_state={READ})"),
        ("train_test_split(x, random_state=42)", None),
        ("seed_offset = 42", None),
        ("if seed == 42:", None),
        ("# seed = 42", None),
    ],
)
def test_edit_that_reads_the_seed(line: str, edited: str | None) -> None:
    assert seed_edits(f"x = 1\n{line}\n") == ([] if edited is None else [f"2: {edited}"])
