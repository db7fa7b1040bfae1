"""Reading and writing the hyperparameter block."""

import difflib
import re

import pytest

from agent.errors import UsageError
from agent.space.block import END, START, block_text, literal, read_block, render_block

SOURCE = '''"""The marker "# --- hyperparameters ---" in a string is not a marker.

# --- hyperparameters ---
"""
import math

# --- hyperparameters ---
DEPTH = 8  # blocks
TOTAL = 2**19  # tokens
WIDE = 524_288
RATE = 1e-3  # Ünïcode
SHARE: float = -0.5
PATTERN = "SSSL"  # S or L
# a comment of its own
TIED = True
# --- end of hyperparameters ---

OTHER = DEPTH * 2
'''


def block(*lines: str) -> str:
    return "\n".join(
        ["import os", "# --- hyperparameters ---", *lines, "# --- end of hyperparameters ---", "X = 1", ""]
    )


def test_values_are_read_in_file_order():
    values = {name: entry.value for name, entry in read_block(SOURCE).items()}
    assert values == {
        "DEPTH": 8, "TOTAL": 524288, "WIDE": 524288, "RATE": 0.001, "SHARE": -0.5, "PATTERN": "SSSL", "TIED": True,
    }  # fmt: skip


def test_render_changes_values_and_keeps_comments():
    new = {"DEPTH": 12, "TOTAL": 2**18, "WIDE": 1048576, "RATE": 0.0025, "SHARE": 0.0, "PATTERN": "LLLL", "TIED": False}
    text = render_block(SOURCE, new)
    changed = [line[1:] for line in difflib.ndiff(SOURCE.splitlines(), text.splitlines()) if line.startswith("+ ")]
    assert [line.strip() for line in changed] == [
        "DEPTH = 12  # blocks",
        "TOTAL = 2**18  # tokens",
        "WIDE = 1_048_576",
        "RATE = 2.5e-3  # Ünïcode",
        "SHARE: float = 0.0",
        'PATTERN = "LLLL"  # S or L',
        "TIED = False",
    ]
    assert {name: entry.value for name, entry in read_block(text).items()} == new


def test_render_of_same_values_changes_nothing():
    assert render_block(SOURCE, {name: entry.value for name, entry in read_block(SOURCE).items()}) == SOURCE


@pytest.mark.parametrize("end", ["\r\n", "\n"])
def test_render_keeps_line_ends(end):
    source = block("A = 1", "B = 2").replace("\n", end).rstrip()
    assert render_block(source, {"B": 3}) == source.replace("B = 2", "B = 3")


def test_render_keeps_comment_columns():
    source = block("A = 1        # one", "LONG = 1000  # two")
    assert "A = 10       # one" in render_block(source, {"A": 10})
    assert "LONG = 1     # two" in render_block(source, {"LONG": 1})
    assert "A = 1234567890123  # one" in render_block(source, {"A": 1234567890123})


@pytest.mark.parametrize(
    ("value", "like", "text"),
    [
        (0.05, "0", "0.05"),
        (65536, "2**17", "2**16"),
        (65537, "2**17", "65537"),
        (3e-05, "0.1", "3e-05"),
        (0.5, "1e-3", "5e-1"),
        ("a'b", '"x"', '"a\'b"'),
        ('a"b', '"x"', "'a\"b'"),
        (True, "False", "True"),
        (-3, "2", "-3"),
    ],
)
def test_literal_keeps_style_of_the_line(value, like, text):
    assert literal(value, like) == text
    assert read_block(block(f"A = {text}"))["A"].value == value


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("A = 1\n", "no hyperparameter block"),
        (block("A = 1") + block("B = 1"), r":7: second start"),
        (block("A = 1").replace("# --- end of hyperparameters ---", ""), r":2: .* no end"),
        (block("A = 1").replace("# --- hyperparameters ---", ""), r":4: .* no start"),
        ("# --- end of hyperparameters ---\n# --- hyperparameters ---\n", r":1: .* ends before it starts"),
        (block("A = 1", "C = A * 2"), r":4: C is computed"),
        (block("A = 9**9**9"), r":3: A is computed"),
        (block("A = (1, 2)"), r":3: A is computed"),
        (block("A = 1 / 0"), r":3: A is computed"),
        (block("A = 1e400 - 1e400"), r":3: A is computed"),
        (block("A = f()"), r":3: A is computed"),
        (block("A = (", "1)"), r":3: A is computed"),
        (block("A = B = 1"), r":3: .*NAME = literal"),
        (block("A, B = 1, 2"), r":3: .*NAME = literal"),
        (block("A: int"), r":3: .*NAME = literal"),
        (block("import sys"), r":3: .*NAME = literal"),
        (block("A = 1", "A = 2"), r":4: A is assigned twice"),
        (block("A = 1") + "A = 2\n", r":6: A is assigned outside"),
        (block("A = 1") + "A += 2\n", r":6: A is assigned outside"),
        ("def f():\n    # --- hyperparameters ---\n    A = 1\n    # --- end of hyperparameters ---\n", "inside line 1"),
        (block("A = "), r":3: not valid Python"),
        ("A = '\0'", "not valid Python"),
    ],
)
def test_bad_block_error_names_the_line(source, says):
    with pytest.raises(UsageError, match=says) as caught:
        read_block(source, "train.py")
    assert str(caught.value).startswith("train.py")


def test_renamed_value_error_suggests_new_name():
    with pytest.raises(UsageError, match=r"train.py:3: hyperparameter DEPTH is not assigned.* mean 'DEPTHS'"):
        read_block(block("DEPTHS = 1"), names=["DEPTH"])


def test_named_values_need_no_markers():
    source = "import os\nA = 1\n\ndef f():\n    A = 2\n\nB = A * 2\nC = 0.5  # share\n"
    assert list(read_block(source, names=["C", "A"])) == ["C", "A"]
    assert render_block(source, {"C": 0.25}) == source.replace("0.5", "0.25")
    with pytest.raises(UsageError, match=re.escape(":7: B is computed")):
        read_block(source, names=["B"])
    with pytest.raises(UsageError, match="A is assigned twice"):
        read_block(source + "A = 3\n", names=["A"])


def test_byte_order_mark_stays() -> None:
    source = f"\ufeff{START}\nRATE = 0.5\n{END}\n"
    assert read_block(source)["RATE"].value == 0.5
    assert render_block(source, {"RATE": 0.25}) == source.replace("0.5", "0.25")
    assert block_text(source) == source.removeprefix("\ufeff")
    assert render_block("\ufeffRATE = 0.5\n", {"RATE": 1}) == "\ufeffRATE = 1\n"
