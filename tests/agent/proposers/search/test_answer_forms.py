"""The forms of a model's answer: the grammar allows what the check accepts."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from places import ROOT

from agent.errors import ReplyRejected
from agent.patch.apply import unified_diff
from agent.proposers.search.answer_forms import block_grammar, number_rule, point_schema, read_diff, read_object
from agent.space.space import SearchSpace
from agent.types import Param

SPACE = SearchSpace.from_toml(ROOT / "nanogpt_target" / "target.toml")


def expression(rule: str) -> re.Pattern[str]:
    """A grammar rule as a regular expression."""
    options = [
        "".join(re.escape(json.loads(token)) if token.startswith('"') else token for token in option.split())
        for option in rule.split(" ::= ", 1)[1].split(" | ")
    ]
    return re.compile("|".join(options))


@settings(max_examples=200)
@given(st.integers(-3000, 30_000), st.integers(1, 40_000), st.integers(-50_000, 80_000))
def test_grammar_bounds_whole_numbers(low: int, width: int, tried: int) -> None:
    pattern = expression(number_rule("v", Param("N", "int", low, low, low + width)))
    for value in {tried, low - 1, low, low + 1, low + width, low + width + 1}:
        assert bool(pattern.fullmatch(str(value))) == (low <= value <= low + width), value
    for gone in {low, low + width // 2, low + width}:
        pattern = expression(number_rule("v", Param("N", "int", low, low, low + width), but=gone))
        for value in {gone - 1, gone, gone + 1}:
            assert bool(pattern.fullmatch(str(value))) == (low <= value <= low + width and value != gone), value


@pytest.mark.parametrize(
    ("low", "high", "log", "good", "bad"),
    [
        (0.0005, 0.05, True, ["0.00050", "0.05000", "0.01234"], ["0.00049", "0.05001", "0.1", "1.00000"]),
        (0.01, 2.0, True, ["0.010", "2.000", "1.999", "0.600"], ["0.009", "2.001", "3.000"]),
        (0.0, 0.5, False, ["0.0000", "0.5000", "0.1234"], ["0.5001", "1.0000"]),
        (0.05, 20.0, True, ["0.050", "20.000", "9.999"], ["0.049", "20.001", "21.000"]),
        (-1.0, 1.0, False, ["-1.000", "1.000", "0.000", "-0.500"], ["-1.001", "1.001"]),
    ],
)
def test_grammar_bounds_floats(low, high, log, good, bad):
    pattern = expression(number_rule("v", Param("N", "float", low or 0.1, low, high, log=log)))
    assert [text for text in good if not pattern.fullmatch(text)] == []
    assert [text for text in bad if pattern.fullmatch(text)] == []


def test_grammar_requires_a_changed_value():
    grammar = block_grammar(SPACE, SPACE.block)
    rules = dict(line.split(" ::= ", 1) for line in grammar.strip().split("\n"))
    lines = SPACE.block.splitlines()
    for i, line in enumerate(lines):
        assert json.dumps(f" {line}\n") in rules[f"after{i}"]
        changes = json.dumps(f"-{line}\n")[1:-1] in rules[f"after{i}"]
        assert changes == (line.partition(" =")[0] in SPACE.names)
    last = max(int(name.removeprefix("before")) for name in rules if name.startswith("before"))
    assert " | " not in rules[f"before{last}"]  # the last value must change


def test_diff_is_read_as_configuration():
    wanted = SPACE.defaults | {"DEPTH": 12, "MATRIX_LR": 0.02, "WINDOW_PATTERN": "SSLL"}
    diff = unified_diff(SPACE.block, SPACE.render(SPACE.block, wanted), SPACE.path)
    assert read_diff(SPACE, SPACE.block, f"Rationale: deeper.\n\n```diff\n{diff}```") == (wanted, "deeper.")


def changed(old: str, new: str) -> str:
    assert old in SPACE.block
    return "```diff\n" + unified_diff(SPACE.block, SPACE.block.replace(old, new), SPACE.path) + "```"


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (changed("DEPTH = 8", "DEPTH = 25"), "DEPTH = 25 is outside 4 to 24"),
        (changed("DEPTH = 8", "DEPTH = 8.5"), "not a whole number"),
        (changed("DEPTH = 8", "DEPTH = WIDTH"), "computed or not a plain literal"),
        (changed("DEPTH = 8", "import os"), "a hyperparameter is one line"),
        (changed("DEPTH = 8", "DEPTH = 9\nHEADS = 3"), "only change values"),
        (changed("HEAD_DIM = 128", "HEAD_DIM = 96"), "power of two"),
        ("DEPTH should be larger.", "no diff"),
        ("--- a/other.py\n+++ b/other.py\n@@ -1 +1 @@\n-x = 1\n+x = 2\n", "no diff"),
    ],
)
def test_diff_outside_block_or_bounds_is_rejected(reply, reason):
    with pytest.raises(ReplyRejected, match=reason):
        read_diff(SPACE, SPACE.block, reply)


def test_json_is_found_and_checked():
    text = json.dumps(SPACE.defaults | {"DEPTH": 9, "rationale": "one more"})
    params, rationale = read_object(SPACE, f"Here it is:\n```json\n{text}\n```")
    assert (params["DEPTH"], rationale) == (9, "one more")
    for bad in ("{}", "[1]", '{"DEPTH": }', json.dumps(SPACE.defaults | {"SEED": 1})):
        with pytest.raises(ReplyRejected):
            read_object(SPACE, bad)


def test_schema_requires_every_parameter():
    schema = point_schema(SPACE)
    assert set(schema["required"]) == {*SPACE.names, "rationale"}
    assert schema["properties"]["HEAD_DIM"] == {"enum": [64, 128, 256]}
    assert schema["properties"]["DEPTH"] == {"type": "integer", "minimum": 4, "maximum": 24}
