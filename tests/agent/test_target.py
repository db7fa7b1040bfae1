"""Budgets of a target."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import UsageError
from agent.target import Budget, parse_budget

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
