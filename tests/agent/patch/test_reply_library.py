"""The library of replies: each reply gives the edit or the rejection in its .expected file."""

from __future__ import annotations

import difflib
from pathlib import Path

import pytest

from agent.errors import NoEffect, PatchRejected
from agent.patch.apply import apply_reply

REPLIES = Path(__file__).parent / "replies"
NAMES = sorted(path.stem for path in REPLIES.glob("*.reply"))


def outcome(text: str, reply: str) -> str:
    try:
        after = apply_reply(text, reply)
    except NoEffect as problem:
        return f"no effect: {problem}\n"
    except PatchRejected as problem:
        return f"rejected: {str(problem).splitlines()[0]}\n"
    changes = difflib.unified_diff(text.splitlines(keepends=True), after.splitlines(keepends=True), n=0)
    return "applied\n" + "".join(list(changes)[2:])


def test_every_reply_has_an_expectation() -> None:
    assert len(NAMES) >= 40
    assert sorted(path.stem for path in REPLIES.glob("*.expected")) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_reply_has_expected_outcome(name: str) -> None:
    text = (REPLIES / "train.py").read_text()
    reply = (REPLIES / f"{name}.reply").read_bytes().decode()
    assert outcome(text, reply) == (REPLIES / f"{name}.expected").read_text()
