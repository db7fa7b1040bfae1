"""Several edits in one text: parents and rivals by lines and by names."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.patch.stack import Change, stack

BASE = "import math\n\nRATE = 0.1\nDEPTH = 4\n\n\ndef loss(x):\n    return x * RATE\n\n\nprint(loss(DEPTH))\n"


def change(old: str, new: str, before: str = BASE) -> Change:
    assert old in before
    return Change(before, before.replace(old, new, 1))


RATE = change("RATE = 0.1", "RATE = 0.2")
DEPTH = change("DEPTH = 4", "DEPTH = 6")
CAP = change("DEPTH = 4\n", "DEPTH = 4\nCAP = 30\n")
USES_CAP = change("x * RATE", "min(x, CAP) * RATE", CAP.after)


def test_adjacent_edits_are_carried_together() -> None:
    assert stack(BASE, [RATE, DEPTH]) == BASE.replace("0.1", "0.2").replace("4", "6")


def test_edits_of_one_line_are_rivals() -> None:
    assert stack(BASE, [RATE, change("RATE = 0.1", "RATE = 0.3")]) is None


def test_edit_of_a_line_of_another_needs_it() -> None:
    higher = change("CAP = 30", "CAP = 15", CAP.after)
    assert stack(BASE, [higher]) is None
    assert "CAP = 15" in (stack(BASE, [CAP, higher]) or "")


def test_edit_that_uses_a_name_of_another_needs_it() -> None:
    assert stack(BASE, [USES_CAP]) is None
    assert "min(x, CAP)" in (stack(BASE, [CAP, USES_CAP]) or "")


def test_edits_that_define_the_same_name_are_rivals() -> None:
    other = change("import math\n", "import math\n\nCAP = 8\n")
    assert stack(BASE, [other]) is not None
    assert stack(BASE, [CAP, other]) is None


def test_edit_that_is_already_there_adds_nothing() -> None:
    assert stack(RATE.after, [RATE]) is None


def test_result_that_does_not_parse_is_refused() -> None:
    assert stack(BASE, [change("print(loss(DEPTH))", "print(loss(DEPTH)")]) is None


@pytest.mark.parametrize(
    "more",
    [
        "for i in range(3):\n    print(i)\n",
        "try:\n    pass\nexcept OSError as error:\n    print(error)\n",
        "with open(__file__) as file:\n    print(file)\n",
        "import os.path as place\nprint(place, [k for k in 'ab'], lambda a, *b, **c: (a, b, c))\n",
        "match RATE:\n    case {'a': x, **rest}:\n        print(x, rest)\n    case [y, *z]:\n        print(y, z)\n",
        "if (n := 3):\n    print(n)\n",
    ],
)
def test_every_way_to_bind_a_name_is_known(more: str) -> None:
    base = BASE + "print(unknown)\n"
    assert stack(base, [Change(base, base + more)]) == base + more


@given(st.permutations([RATE, DEPTH, CAP, change("* RATE", "* RATE + math.pi")]))
def test_order_of_independent_edits_does_not_matter(changes: list[Change]) -> None:
    assert stack(BASE, changes) == stack(BASE, changes[::-1])
