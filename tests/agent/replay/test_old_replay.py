"""Ledgers of replays and promotions that version 0.1 wrote, when the two had plans of their own.

Beside each ledger lies what ``--json`` of that version printed.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from agent.ledger.journal import read
from agent.ledger.state import fold
from agent.replay.outcomes import result_in
from agent.replay.recorded import read_recorded
from agent.replay.view import result_json
from agent.rundir.directory import RunDirectory

OLD = Path(__file__).parents[2] / "fixtures" / "replays_of_0_1"


@pytest.mark.parametrize("name", sorted(path.name for path in OLD.iterdir()))
def test_result_of_old_ledger_is_the_same(name: str) -> None:
    result = result_in(fold(read(OLD / name / "ledger.jsonl")))
    assert result is not None
    assert (
        differing(json.loads(json.dumps(result_json(result))), json.loads((OLD / name / "result.json").read_text()))
        == []
    )


@pytest.mark.parametrize("name", sorted(path.name for path in OLD.iterdir()))
def test_old_ledger_is_shown(name: str, tmp_path: Path) -> None:
    shutil.copytree(OLD / name, tmp_path / name)
    found = read_recorded(RunDirectory(tmp_path, name))
    assert (found.condition, found.left, found.damage) == ("ended", 0, ())
    assert found.shown is not None
    assert all(table.rows for table in found.shown.tables)


def differing(found: Any, before: Any, where: str = "") -> list[str]:
    """Places where two JSON texts differ."""
    if isinstance(before, dict):
        return [line for key in before for line in differing(found[key], before[key], f"{where}/{key}")]
    if isinstance(before, list) and len(found) == len(before):
        return [
            line for k, pair in enumerate(zip(found, before, strict=True)) for line in differing(*pair, f"{where}/{k}")
        ]
    same = found == (pytest.approx(before) if isinstance(before, float) else before)
    return [] if same else [f"{where}: {before} before, {found} now"]
