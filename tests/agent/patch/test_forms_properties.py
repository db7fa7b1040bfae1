"""Search and replace blocks and whole files: applied exactly, or rejected."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from agent.errors import PatchRejected
from agent.patch.apply import edited, form_of, unified_diff

FILE = (Path(__file__).parent / "replies" / "train.py").read_text()
# Few distinct lines, so that most places are ambiguous, and lines that look like marks of a form.
LINES = ["a", "b", "c", "", "    a", "        a", "  ", "\tb", "# ...", "-a", "+a", "@@", "=====", "```", "x = 1"]
files = st.lists(st.sampled_from(LINES), min_size=1, max_size=24)
MARKS = ("<<<<<<<", "=======", ">>>>>>>")


def block(old: list[str], new: list[str]) -> str:
    head, divider, tail = MARKS
    return "\n".join([f"{head} SEARCH", *old, divider, *new, f"{tail} REPLACE", ""])


def text(lines: list[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


def lines_of(content: str) -> list[str]:
    return [line.rstrip() for line in content.splitlines()]


@settings(max_examples=400)
@given(files, files, st.data())
def test_block_is_applied_exactly_or_rejected(before: list[str], new: list[str], data: st.DataObject) -> None:
    begin = data.draw(st.integers(0, len(before) - 1))
    end = data.draw(st.integers(begin + 1, len(before)))
    old = before[begin:end]
    places = [at for at in range(len(before)) if lines_of(text(before[at : at + len(old)])) == lines_of(text(old))]
    words, written = ([line for line in lines if line.strip()] for lines in (before, old))
    loose = sum(words[at : at + len(written)] == written for at in range(len(words)))  # without blank lines
    after = [*before[:begin], *new, *before[end:]]
    try:
        result = edited(text(before), block(old, new), "notes.txt")
    except PatchRejected:
        hard = {"=====", "# ...", "```"} & {*old, *new} or lines_of(text(old)) == lines_of(text(new))
        assert hard or loose > 1 or not written
        return
    if len(places) == 1:
        assert lines_of(result) == lines_of(text(after))


@settings(max_examples=200)
@given(st.integers(0, 60), st.integers(2, 30), st.booleans())
def test_two_blocks_are_applied_exactly_or_rejected(first: int, gap: int, named: bool) -> None:
    before = FILE.splitlines()
    second = min(first + gap, len(before) - 1)
    assume(before[first].strip() and before[second].strip() and first < second)
    after = [f"{line}  # new" if at in (first, second) else line for at, line in enumerate(before)]
    middle = (first + second + 1) // 2
    parts = [(max(0, first - 3), min(middle, first + 4)), (max(middle, second - 3), second + 4)]
    blocks = [block(before[low:high], after[low:high]) for low, high in parts]
    reply = "\n".join(f"train.py\n```python\n{part}```\n" if named else part for part in blocks)
    with contextlib.suppress(PatchRejected):
        assert edited(FILE, reply) == text(after)


EDITS = st.sampled_from([("DEPTH = 4", "DEPTH = 8"), ("gelu", "relu"), ("import math\n", "import math\nimport os\n")])


@settings(max_examples=60)
@given(st.lists(EDITS, min_size=1, max_size=3, unique=True), st.booleans(), st.sampled_from(["", "py", "train.py"]))
def test_whole_file_gives_the_edited_file(edits: list[tuple[str, str]], crlf: bool, info: str) -> None:
    after = FILE
    for old, new in edits:
        after = after.replace(old, new)
    before, wanted = (side.replace("\n", "\r\n") if crlf else side for side in (FILE, after))
    assert edited(before, f"Sure:\n```{info}\n{after}```\nDone.") == wanted


@settings(max_examples=300)
@given(st.integers(0, 62), st.integers(1, 30))
def test_file_without_a_definition_is_never_applied(at: int, count: int) -> None:
    lines = FILE.splitlines()
    left = [*lines[:at], *lines[at + count :]]
    heads = [line for line in lines[at : at + count] if line.strip().startswith(("def ", "class "))]
    assume(heads)
    with pytest.raises(PatchRejected):
        edited(FILE, f"```python\n{text(left)}```")


@pytest.mark.parametrize(
    ("reply", "form"),
    [
        (block(["DEPTH = 4"], ["DEPTH = 8"]), "blocks"),
        (block(["DEPTH = 4"], ["DEPTH = 8"]).replace("=======", ""), "blocks"),
        (unified_diff(FILE, FILE.replace("4", "5"), "train.py"), "diff"),
        ("```diff\n-DEPTH = 4\n+DEPTH = 8\n```", "diff"),
        (f"```python\n{FILE}```", "file"),
        ("I would raise the rate.", ""),
        ("<think>```diff\n@@\n</think> no", ""),
    ],
)  # fmt: skip
def test_form_of_a_reply(reply: str, form: str) -> None:
    assert form_of(reply) == form


def test_renamed_class_is_accepted_in_a_whole_file() -> None:
    after = FILE.replace("class Feedforward", "class Wide").replace("Feedforward(", "Wide(")
    used = FILE.replace("def schedule", "def build() -> Feedforward:\n    return Feedforward(4)\n\n\ndef schedule")
    after = used.replace("Feedforward", "Wide")
    assert edited(used, f"```python\n{after}```") == after
