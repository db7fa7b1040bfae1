"""The search space: from target.toml and block to the unit cube and back."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.errors import UsageError
from agent.space.constraints import parse_constraint
from agent.space.space import SearchSpace
from agent.types import Param

SOURCE = """# --- hyperparameters ---
DEPTH = 8
HEADS = 4  # heads
ROWS = 2**5
TOKENS = 2**16
RATE = 0.01
SHARE = 0.0
PATTERN = "SL"
TIED = True
# --- end of hyperparameters ---
"""
TOML = """[target]
name = "small"
editable = ["train.py"]

[search]
constraints = ["TOKENS >= ROWS * 1024", "DEPTH * HEADS <= 64", "SHARE + RATE < 0.25"]

[[hyperparameters]]
name = "DEPTH"
low = 2
high = 32

[[hyperparameters]]
name = "HEADS"
low = 1
high = 16
log = true

[[hyperparameters]]
name = "ROWS"
low = 8
high = 256
power_of_two = true

[[hyperparameters]]
name = "TOKENS"
low = 8192
high = 262144
log = true
power_of_two = true

[[hyperparameters]]
name = "RATE"
low = 0.0001
high = 1.0
log = true

[[hyperparameters]]
name = "SHARE"
low = 0.0
high = 0.5

[[hyperparameters]]
name = "PATTERN"
choices = ["SL", "LL", "SS"]

[[hyperparameters]]
name = "TIED"
"""


def write(tmp_path, toml=TOML, source=SOURCE):
    (tmp_path / "target.toml").write_text(toml)
    (tmp_path / "train.py").write_text(source)
    return tmp_path / "target.toml"


@pytest.fixture(scope="module")
def space(tmp_path_factory):
    return SearchSpace.from_toml(write(tmp_path_factory.mktemp("target")))


cube = st.lists(st.floats(0, 1), min_size=8, max_size=8)


def test_params_are_read_from_toml_and_block(space):
    depth, heads, rows, *_, share, pattern, tied = space.params
    assert depth == Param("DEPTH", "int", 8, 2.0, 32.0)
    assert (heads.kind, heads.log, rows.power_of_two, share.kind) == ("int", True, True, "float")
    assert pattern.choices == ("SL", "LL", "SS")
    assert tied.choices == (False, True)
    assert space.categorical == (6, 7)
    assert space.read(SOURCE) == space.defaults
    assert space.valid(space.defaults) == []


@settings(max_examples=200)
@given(cube)
def test_every_cube_point_is_valid_and_round_trips(space, x):
    params = space.from_unit(x)
    assert space.valid(params) == []
    unit = space.to_unit(params)
    assert ((unit >= 0) & (unit <= 1)).all()
    assert space.from_unit(unit) == params
    assert space.read(space.render(SOURCE, params)) == params


def test_values_of_other_libraries_round_trip(space):
    for axis in space.axes.values():
        for value in axis.values():
            assert axis.inward(axis.outward(value)) == value


def test_finite_axis_reaches_every_value(space):
    depths = [space.axes["DEPTH"].decode(u) for u in np.linspace(0, 1, 3101)]
    assert sorted(set(depths)) == list(range(2, 33))
    assert {space.axes["ROWS"].decode(u) for u in np.linspace(0, 1, 100)} == {8, 16, 32, 64, 128, 256}
    assert {space.axes["HEADS"].decode(u) for u in np.linspace(0, 1, 500)} == set(range(1, 17))


def test_floats_have_four_digits(space):
    for u in np.random.default_rng(0).random(200):
        for axis in (space.axes["RATE"], space.axes["SHARE"]):
            assert len(f"{axis.decode(u):.10f}".strip("0").lstrip(".0")) <= 4, axis.decode(u)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"DEPTH": 99}, "DEPTH = 99"),
        ({"DEPTH": 2.5}, "DEPTH = 2.5"),
        ({"ROWS": 48}, "ROWS = 48"),
        ({"RATE": math.nan}, "RATE = nan"),
        ({"RATE": True}, "RATE = True"),
        ({"TIED": 1}, "TIED = 1"),
        ({"ROWS": 128}, "TOKENS >= ROWS * 1024"),
        ({"NEW": 1}, "NEW"),
    ],
)
def test_valid_names_the_problem(space, changes, says):
    (problem,) = space.valid(space.defaults | changes)
    assert says in problem


def test_valid_names_a_missing_value(space):
    (problem,) = space.valid({k: v for k, v in space.defaults.items() if k != "RATE"})
    assert "RATE" in problem


def test_broken_constraint_moves_one_value_slightly(space):
    broken = space.to_unit(space.defaults | {"ROWS": 128})
    assert space.from_unit(broken) in (
        space.defaults | {"ROWS": 64},
        space.defaults | {"ROWS": 128, "TOKENS": 131072},
    )
    near = space.from_unit(space.to_unit(space.defaults | {"SHARE": 0.3}))
    assert {k for k in near if near[k] != space.defaults[k]} == {"SHARE"}
    assert 0.23 < near["SHARE"] < 0.24


def test_key_ignores_rounding_errors(space):
    assert space.key(space.defaults) == space.key(space.defaults | {"RATE": 0.01 * (1 + 1e-12)})
    assert space.key(space.defaults) != space.key(space.defaults | {"RATE": 0.0101})


def test_finite_space_is_counted_and_listed():
    axes = [Param("A", "int", 1, 1, 3), Param("B", "categorical", "x", choices=("x", "y"))]
    space = SearchSpace(axes, ["A > 1 or B == 'x'"])
    assert space.size == 6
    assert len(list(space.every())) == 5
    assert SearchSpace([*axes, Param("C", "float", 0.5, 0.0, 1.0)]).size == math.inf


def test_from_toml_takes_folder_and_source(tmp_path):
    write(tmp_path)
    assert SearchSpace.from_toml(tmp_path).defaults["DEPTH"] == 8
    assert SearchSpace.from_toml(tmp_path, source=SOURCE.replace("= 8", "= 9")).defaults["DEPTH"] == 9


def test_file_without_markers_is_searchable(tmp_path):
    source = "import os\nLR = 3e-4\nBATCH = 64\nSTEPS = BATCH * 10\n"
    toml = '[target]\neditable = ["train.py"]\n[[hyperparameters]]\nname = "LR"\nlow = 1e-5\nhigh = 1e-2\nlog = true\n'
    space = SearchSpace.from_toml(write(tmp_path, toml, source))
    assert space.render(source, {"LR": 0.001}) == source.replace("3e-4", "1e-3")


def test_kind_follows_from_literal_and_bounds(tmp_path):
    def kind(literal, low, high, extra=""):
        text = f'[[hyperparameters]]\nname = "A"\nlow = {low}\nhigh = {high}\n{extra}'
        return SearchSpace.from_toml(write(tmp_path, text, f"A = {literal}\n")).params[0].kind

    assert kind("1", 0, 2) == "int"
    assert kind("0", 0, 0.5) == "float"
    assert kind("1", 0, 2, 'kind = "float"') == "float"
    assert kind("1.5", 0, 2) == "float"


def change(old, new, text=TOML):
    assert old in text
    return text.replace(old, new, 1)


@pytest.mark.parametrize(
    ("toml", "source", "says"),
    [
        (TOML, SOURCE.replace("DEPTH = 8", "DEPTHS = 8"), r"train.py:2: hyperparameter DEPTH is not .*'DEPTHS'"),
        (TOML, SOURCE.replace("DEPTH = 8", "DEPTH = 4 * X"), r"train.py:2: DEPTH is computed"),
        (TOML, SOURCE.replace("TIED", "DROP = 0.1\nTIED"), r"train.py:9: DROP .* has no bounds"),
        (TOML, SOURCE.replace("DEPTH = 8", "DEPTH = 33"), r"train.py:2: the default .*toml:8: .*outside 2 to 32"),
        (TOML, SOURCE.replace("2**5", "48"), r"train.py:4: the default breaks .*not a power of two"),
        (TOML, SOURCE.replace('"SL"', '"XX"'), r"train.py:8: the default breaks .*not one of"),
        (TOML, SOURCE.replace("2**5", "2**8"), r"target.toml:6: .*the defaults break `TOKENS >= ROWS \* 1024`"),
        (change("high = 32\n", ""), SOURCE, r"target.toml:8: .*key high: DEPTH: has no bounds"),
        (change("high = 32", 'high = "32"'), SOURCE, r"target.toml:11: .*key high: DEPTH: has no bounds"),
        (change("high = 32", "high = 2"), SOURCE, r"target.toml:10: .*low = 2 is not below high = 2"),
        (change("high = 32", "high = inf"), SOURCE, r"target.toml:11: .*no bounds"),
        (change("low = 0.0001", "low = 0"), SOURCE, r"target.toml:34: .*log = true needs low above 0"),
        (change("low = 8\n", "low = -8\n"), SOURCE, r"target.toml:21: .*power_of_two = true needs low above 0"),
        (change("low = 8\nhigh = 256", "low = 33\nhigh = 63"), SOURCE, r"target.toml:21: .*less than two values"),
        (change("log = true", "logs = true"), SOURCE, r"toml:17: .*key logs: unknown .* mean 'log'"),
        (change("log = true", 'log = "yes"'), SOURCE, r"target.toml:17: .*true or false"),
        (change('name = "HEADS"', 'name = "DEPTH"'), SOURCE, r"target.toml:14: .*DEPTH is defined twice"),
        (change('name = "HEADS"', ""), SOURCE, r"target.toml:13: .*set name"),
        (change('choices = ["SL", "LL", "SS"]', ""), SOURCE, r"target.toml:43: .*PATTERN: needs choices"),
        (change('["SL", "LL", "SS"]', '["SL", "SL"]'), SOURCE, r"target.toml:45: .*different values"),
        (change("TOKENS >= ROWS * 1024", "TOKENS >= ROWZ"), SOURCE, r"target.toml:6: .*ROWZ, .* mean 'ROWS'"),
        (change("TOKENS >= ROWS * 1024", "TOKENS > 10**9"), SOURCE, r"target.toml:6: .*nothing .*`TOKENS > 10"),
        (change("TOKENS >= ROWS * 1024", "open('x') > TOKENS"), SOURCE, r"target.toml:6: .*not"),
        (change("TOKENS >= ROWS * 1024", "TOKENS"), SOURCE, r"target.toml:6: .*not a comparison"),
        (TOML.split("[[hyper")[0], SOURCE, r"target.toml: no \[\[hyperparameters\]\]"),
        ("hyperparameters = [{name = \"DEPTH\"}, {name = \"DEPTH\"}]", SOURCE, "DEPTH is defined twice"),
        ("[target", SOURCE, "not valid TOML"),
        (change("train.py", "gone.py"), SOURCE, r"gone.py: No such file"),
    ],
)  # fmt: skip
def test_bad_toml_error_names_file_line_key(tmp_path, toml, source, says):
    with pytest.raises(UsageError, match=says):
        SearchSpace.from_toml(write(tmp_path, toml, source))


def test_missing_target_toml_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"target.toml: No such file"):
        SearchSpace.from_toml(tmp_path)


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("A >= B * 2", True),
        ("1 < A <= 4", True),
        ("A % B == 0", True),
        ("not A == B", True),
        ("A > B and B > A", False),
        ("A / (B - 2) > 0", False),
        ("A ** A ** A ** A > 0", False),
        ("-A < 0", True),
        ("A > 'x'", False),
    ],
)
def test_constraint_holds(text, holds):
    assert parse_constraint(text, ["A", "B"]).holds({"A": 4, "B": 2}) is holds


@pytest.mark.parametrize(
    "text",
    ["A", "A +", "__import__('os').system('x') == A", "A.b > 1", "A[0] > 1", "(lambda: A)() > 1", "1 > 0", "A in B"],
)
def test_constraint_rejects_code(text):
    with pytest.raises(ValueError):
        parse_constraint(text, ["A", "B"])


def test_divisibility_constraint_is_repaired():
    space = SearchSpace([Param("A", "int", 4, 1, 64), Param("B", "int", 2, 1, 64)], ["A % B == 0"])
    random = np.random.default_rng(1)
    assert all(space.valid(space.from_unit(random.random(2))) == [] for _ in range(200))


@pytest.mark.parametrize(
    ("param", "message"),
    [
        (Param("A", "float", 1.0, 2.0, 0.0), "low = 2 is not below high = 0"),
        (Param("A", "float", 1.0), "low and high"),
        (Param("A", "float", 1.0, 0.0, math.nan), "low and high"),
        (Param("A", "float", 1.0, 0.0, 2.0, log=True), "log = true needs low above 0"),
        (Param("A", "int", 1, -1, 2, log=True), "log = true needs low above 0"),
        (Param("A", "float", 5.0, 0.0, 2.0), "A = 5.0 is outside 0 to 2"),
        (Param("A", "int", 6, 5, 7, power_of_two=True), "less than two values"),
        (Param("A", "float", 2.0, 1.0, 8.0, power_of_two=True), "not a whole number"),
        (Param("A", "int", 1.5, 0, 3), "not a whole number"),
        (Param("A", "categorical", "a"), "two or more"),
        (Param("A", "categorical", "a", choices=("a",)), "two or more"),
        (Param("A", "categorical", "b", choices=("a", "c")), "is not one of"),
        (Param("A", "number", 1.0, 0.0, 2.0), "'number' is not int, float or categorical"),
    ],
)
def test_unusable_parameter_raises(param, message):
    with pytest.raises(UsageError, match=f"A.*{message}"):
        SearchSpace([param])


def test_powers_of_two_are_whole_numbers():
    space = SearchSpace([Param("A", "int", 2, 0.25, 4, power_of_two=True)])
    assert list(space.axes["A"].values()) == [1, 2, 4]


def test_space_needs_distinct_parameters():
    with pytest.raises(UsageError, match="no hyperparameters"):
        SearchSpace([])
    with pytest.raises(UsageError, match="A is defined twice"):
        SearchSpace([Param("A", "float", 1.0, 0.0, 2.0)] * 2)
    with pytest.raises(UsageError, match="a list"):
        SearchSpace([Param("A", "int", 1, 0, 2)], "A > 0")


@pytest.mark.parametrize(
    "param",
    [
        Param("A", "float", 1000.2, 1000.0, 1001.0),
        Param("A", "float", 1.00002, 1.0, 1.0001),
        Param("A", "float", -999.5, -1000.0, -999.0),
        Param("A", "float", 1000.2, 1000.0, 1001.0, log=True),
        Param("A", "float", 1e6 + 1e-3, 1e6, 1e6 + 1e-2),
    ],
)
def test_narrow_range_keeps_its_resolution(param):
    space = SearchSpace([param])
    values = [space.from_unit([u]) for u in np.linspace(0, 1, 1001)]
    assert len({v["A"] for v in values}) > 900
    assert len({space.key(v) for v in values}) > 900
    for u, v in zip(np.linspace(0, 1, 1001), values, strict=True):
        assert space.to_unit(v)[0] == pytest.approx(u, abs=1e-3)


def test_unknown_search_key_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"target.toml:\d+: \[search\] constraint: .* mean 'constraints'"):
        SearchSpace.from_toml(write(tmp_path, TOML.replace("constraints =", "constraint =")))
