"""Budgets of a target, and target.toml with any content."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tomli_w
from hypothesis import given
from hypothesis import strategies as st
from targets import TOML, TRAIN, make_bowl

from agent.errors import UsageError
from agent.settings import make_settings
from agent.space.space import SearchSpace
from agent.target import TARGET_KEYS, Budget, load_target, parse_budget

BEFORE = Budget("seconds", 300, 300)


@pytest.mark.parametrize(
    ("text", "kind", "amount"),
    [("300s", "seconds", 300), ("5m", "seconds", 300), ("1h", "seconds", 3600), ("0.5s", "seconds", 0.5),
     ("200steps", "steps", 200), ("1e6tokens", "tokens", 1_000_000), (" 20 steps ", "steps", 20)],
)  # fmt: skip
def test_parse_budget_reads_units(text: str, kind: str, amount: float) -> None:
    budget = parse_budget(text, BEFORE)
    assert (budget.kind, budget.amount) == (kind, amount)
    assert budget.startup_seconds == BEFORE.startup_seconds


@given(st.text(max_size=12))
def test_parse_budget_rejects_other_text(text: str) -> None:
    try:
        budget = parse_budget(text, BEFORE)
    except UsageError:
        return
    assert budget.amount > 0


PARAMETERS = st.lists(
    st.fixed_dictionaries(
        {"name": st.sampled_from(["RATE", "DEPTH"])},
        optional={
            key: st.floats() | st.integers() | st.booleans() | st.text(max_size=3) | st.lists(st.integers(), max_size=3)
            for key in ("low", "high", "choices", "log", "power_of_two")
        },
    ),
    max_size=2,
)
VALUES = st.one_of(
    st.text(max_size=8), st.integers(-(2**40), 2**63 - 1), st.floats(), st.booleans(),
    st.lists(st.text(max_size=5) | st.integers(-3, 3), max_size=3), st.just({"low": 1}), PARAMETERS,
)  # fmt: skip
TABLES = st.fixed_dictionaries(
    {},
    optional={
        table: st.dictionaries(st.sampled_from(keys or ("name", "low", "high", "trials")), VALUES, max_size=5) | VALUES
        for table, keys in TARGET_KEYS.items()
    },
)
WHOLE: dict[str, Any] = {"editable": ["train.py"], "train": ["python", "train.py"], "pattern": "v: (.)"}


@given(TABLES, st.booleans())
def test_any_tables_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, tables: dict[str, Any], whole: bool
) -> None:
    folder = tmp_path_factory.getbasetemp()
    if whole:
        tables = {"budget": {"seconds": 5}, **tables}
        tables["target"] = {**WHOLE, **(tables["target"] if isinstance(tables.get("target"), dict) else {})}
    assert all(
        "target.toml" in problem for problem in refusals(folder, tomli_w.dumps(tables).encode("utf-8", "replace"))
    )


@given(st.binary(max_size=60) | st.text(max_size=60).map(lambda text: text.encode("utf-8", "replace")))
def test_any_bytes_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    assert all("target.toml" in problem for problem in refusals(tmp_path_factory.getbasetemp(), data))


def refusals(folder: Path, data: bytes) -> list[str]:
    """The messages about a target.toml of these bytes; every other error fails the test."""
    path, found = folder / "target.toml", []
    path.write_bytes(data)
    try:
        target, run = load_target(folder)
        assert target.budget.amount > 0
        make_settings({}, None, run)
    except UsageError as error:
        found.append(str(error))
    try:
        SearchSpace.from_toml(path, source=TRAIN)
    except UsageError as error:
        found.append(str(error))
    return found


def test_byte_order_mark_of_target_toml_is_skipped(tmp_path: Path) -> None:
    folder = make_bowl(tmp_path / "target", toml="\ufeff" + TOML)
    assert load_target(folder)[0].name == "bowl"
    assert SearchSpace.from_toml(folder).params
