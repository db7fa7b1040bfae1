"""Any finite number in a ledger or a curve: every view stays readable."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nights import write_night

from agent import text
from agent.cli.entry import main
from agent.curves import read_curve
from agent.judge.noise import noise_of
from agent.ledger.journal import read
from agent.ledger.state import fold
from agent.types import LARGEST_VALUE, Measurement

FINITE = st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from([1.7e308, -1.7e308, 1e155, 1e30, -1e30])
HARD = settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_night(tmp_path_factory.mktemp("runs") / "night", trials=6)


@pytest.fixture(scope="module")
def ledger(run: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (run / "ledger.jsonl").read_text().splitlines()]


@HARD
@given(st.lists(FINITE, min_size=3, max_size=8))
def test_commands_read_ledger_with_any_finite_value(
    run: Path, ledger: list[dict[str, object]], values: list[float]
) -> None:
    lines = []
    for number, line in enumerate(ledger):
        value = values[number % len(values)]
        if line["event"] == "measured" and line["measurement"]["value"] is not None:  # type: ignore[index]
            line = {**line, "measurement": {**line["measurement"], "value": value}}  # type: ignore[dict-item]
        if line["event"] == "judged" and line["verdict"]["gain"] is not None:  # type: ignore[index]
            figures = {"value": value, "gain": value, "gain_se": abs(value), "best_before": -value}
            line = {**line, "verdict": {**line["verdict"], **figures}}  # type: ignore[dict-item]
        lines.append(json.dumps(line))
    (run / "ledger.jsonl").write_text("\n".join(lines) + "\n")
    noise_of(fold(read(run / "ledger.jsonl")))
    for words in (["status", "night"], ["log", "night"], ["log", "night", "--json"], ["show", "night", "1"],
                  ["report", "night"], ["list"]):  # fmt: skip
        assert main([*words, "--runs", str(run.parent)]) == 0, words


@given(FINITE)
def test_value_beyond_bound_is_invalid(value: float) -> None:
    run = Measurement("c", "screen", 0, "cpu", "ok", value)
    assert (run.status == "invalid") == (abs(value) > LARGEST_VALUE)
    assert (run.value is None) == (run.status == "invalid") == bool(run.reason)


@given(st.lists(FINITE, max_size=30), st.integers(1, 12))
def test_charts_accept_any_finite_values(values: list[float], width: int) -> None:
    assert len(text.sparkline(values, width)) == min(width, len(values))
    assert len(text.chart(values, width, 3)) == (3 if values else 0)


def test_curve_leaves_out_extreme_losses(tmp_path: Path) -> None:
    losses = [1.7e308, -1.7e308, 1.7e308, 1e308, 3.0, 2.5]
    points = [json.dumps({"progress": k / 10, "loss": loss, "step": 10**300}) for k, loss in enumerate(losses)]
    (tmp_path / "curve.jsonl").write_text("\n".join(points))
    assert [point.loss for point in read_curve(tmp_path / "curve.jsonl")] == [3.0, 2.5]
