"""Normal forms: equal programs, edits of seeds only, and sizes."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.patch.normal_form import changes_loss, normal_form, only_seed_changes, tree_size

SAME = [
    ("x = 2**19", "x = 524288"),
    ("\ufeffx = 1", "x = 1"),
    ("x = 1e-3", "x = 0.001"),
    ("x = 524_288", "x = 0x80000"),
    ("x = 1 << 19", "x = 2**19"),
    ("x = 16 * 1024", "x = 16_384"),
    ("x = (1 + 2) * 3", "x = 9"),
    ("x = -(-1)", "x = 1"),
    ("x = 1 / 4", "x = 0.25"),
    ("x = u'a'", 'x = "a"'),
    ("x = 'ab'", "x = 'a' 'b'"),
    ("x = 1  # one", "\n\nx=1\n"),
    ('def f():\n    """Doc."""\n    return 1', "def f():\n  return (1)"),
    ('"""Module."""\nx = 1', "x = 1"),
    ("def f():\n    'only this'", "def f():\n    pass"),
    ("class A:\n    pass\n    x = 1", "class A:\n    x = 1"),
    ("if a:\n    b()\nelse:\n    pass", "if a:\n    b()"),
    ("f(a=1, b=x)", "f(b=x, a=1)"),
]
DIFFERENT = [
    ("x = 1", "x = 1.0"),
    ("x = 1", "x = True"),
    ("x = 0.0", "x = -0.0"),
    ("x = 2**19", "x = 2**18"),
    ("x = y", "x = z"),
    ("f(a=g(), b=h())", "f(b=h(), a=g())"),
    ("x = 'a'", "x = b'a'"),
    ("x = 7 // 2", "x = 7 / 2"),
    ('"""A."""\nprint(__doc__)', '"""B."""\nprint(__doc__)'),
    ("if a:\n    b()\nc()", "if a:\n    b()\n    c()"),
]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_same_program(one: str, other: str) -> None:
    assert normal_form(one) == normal_form(other)
    assert len(normal_form(one)) == 64


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_different_program(one: str, other: str) -> None:
    assert normal_form(one) != normal_form(other)


def test_arithmetic_that_fails_is_not_folded() -> None:
    for value in ("1 / 0", "10**10**10", "1 << 99999999", "0 ** -1", "(-8) ** 0.5", "1e308 * 10", "1 << -1"):
        assert normal_form(f"x = {value}") == normal_form(f"x = {value}  # same")
        assert normal_form(f"x = {value}") != normal_form("x = 3")


@pytest.mark.parametrize(("before", "after"), [
    ("SEED = 1", "SEED = 2"),
    ("torch.manual_seed(1)\nf()", "torch.manual_seed(2 + 3)\nf()"),
    ("f()", "torch.manual_seed(42)\nf()"),
    ("f(seed=1, a=2)", "f(seed=7, a=2)"),
    ("def f(x, seed=1): g(x)", "def f(x, seed=2): g(x)"),
    ("def f(*, random_state=1): g()", "def f(*, random_state=2): g()"),
    ("c = {'seed': 1}", "c = {'seed': 2}"),
    ("self.data_seed: int = 1", "self.data_seed: int = 2"),
    ("r = np.random.default_rng(1)", "r = np.random.default_rng(5)"),
    ("g = torch.Generator().manual_seed(1)", "g = torch.Generator().manual_seed(9)"),
])  # fmt: skip
def test_edit_of_seeds_only(before: str, after: str) -> None:
    assert only_seed_changes(before, after)
    assert not only_seed_changes(before, before)


@pytest.mark.parametrize(("before", "after"), [
    ("SEED = 1\nLR = 1", "SEED = 2\nLR = 2"),
    ("f(seed=1, a=2)", "f(seed=1, a=3)"),
    ("SEED = 1", "SEED = 1  # same"),
    ("speed = 1", "speed = 2"),
    ("torch.manual_seed(1)\nf()", "torch.manual_seed(1)\ng()"),
    ("f()", "seeds = sorted(x)\nf()"),
    ("class A(B, seed=1): pass", "class A(B, seed=2): pass"),
])  # fmt: skip
def test_edit_of_more_than_seeds(before: str, after: str) -> None:
    assert not only_seed_changes(before, after)


def test_tree_size_ignores_spelling() -> None:
    assert tree_size("x = 2**19  # big") == tree_size("x = 524288")
    assert tree_size("x = 1\ny = 2") > tree_size("x = 1")
    assert tree_size('"""Doc."""\nx = 1') == tree_size("x = 1")
    assert tree_size("") == 1


@pytest.mark.parametrize("source", ["x = (", "\x00", "def", "(" * 5000, "\ud800", "x = " + "-" * 100_000 + "1"])
def test_unparsable_source_is_a_syntax_error(source: str) -> None:
    for function in (normal_form, tree_size):
        with pytest.raises(SyntaxError):
            function(source)


@settings(max_examples=200)
@given(st.text("xyz=()+-*/ \n:0123456789.'\"", max_size=40))
def test_comment_does_not_change_the_form(source: str) -> None:
    try:
        form = normal_form(source)
    except SyntaxError:
        return
    assert form == normal_form(source + "\n# a comment\n")


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        ("loss = F.cross_entropy(x, y)\nrate = 2\nback(loss)", False),
        ("loss = F.cross_entropy(x, y, label_smoothing=0.1)\nrate = 1\nback(loss)", True),
        ("loss = F.cross_entropy(x, y)\nloss = loss + z\nrate = 1\nback(loss)", True),
        ("loss = F.cross_entropy(x, y)  # nats\nrate = 1\nif a:\n    rate = 2\nback(loss)", False),
        ("loss =", False),
    ],
    ids=["elsewhere", "another loss", "a term", "comment", "not Python"],
)
def test_edits_of_the_loss_are_found(after: str, expected: bool) -> None:
    assert changes_loss("loss = F.cross_entropy(x, y)\nrate = 1\nback(loss)", after) is expected
