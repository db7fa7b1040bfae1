"""The cache of `overnight list` follows the ledger and may be deleted."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from nights import write_night
from places import ROOT

from agent.ledger.events import Resumed
from agent.ledger.journal import Ledger, read
from agent.ledger.state import fold
from agent.review.data.runs import CACHE, overview, run_json
from agent.rundir.directory import RunDirectory


def fresh(runs: Path, tag: str) -> dict[str, object]:
    return {**run_json(tag, fold(read(RunDirectory(runs, tag).ledger)), False), "comparison": None}


def test_row_is_cached_until_ledger_grows(tmp_path: Path) -> None:
    write_night(tmp_path / "a", trials=6, tag="a")
    first = overview(tmp_path, print)
    assert first == [fresh(tmp_path, "a")]
    place = tmp_path / "a" / CACHE
    kept = json.loads(place.read_text())
    place.write_text(json.dumps({**kept, "row": {**kept["row"], "kept": 999}}))
    assert overview(tmp_path, print)[0]["kept"] == 999
    with Ledger(tmp_path / "a" / "ledger.jsonl") as ledger:
        ledger.append(Resumed(attempt=1))
    assert overview(tmp_path, print) == [fresh(tmp_path, "a")]
    assert overview(tmp_path, print)[0]["state"] == "interrupted"


def test_damaged_cache_is_rebuilt(tmp_path: Path) -> None:
    write_night(tmp_path / "a", trials=3, tag="a")
    expected = overview(tmp_path, print)
    for text in ("", "{", "[]", '{"stamp": 1}', '{"row": {}}', "\x00"):
        (tmp_path / "a" / CACHE).write_text(text)
        assert overview(tmp_path, print) == expected


def test_running_run_and_run_without_ledger(tmp_path: Path) -> None:
    write_night(tmp_path / "a", trials=3, tag="a")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "run.toml").write_text("")
    with RunDirectory(tmp_path, "a").lock():
        rows = {row["tag"]: row for row in overview(tmp_path, print)}
    assert rows["a"]["state"] == "running"
    assert rows["a"]["reason"] is None
    assert rows["b"]["trials"] == 0
    assert {row["tag"]: row["state"] for row in overview(tmp_path, print)} == {"a": "ended", "b": "interrupted"}


def test_records_benchmark_runs(tmp_path: Path) -> None:
    sizes = ["--trials", "60", "--runs", "3", "--short", "5", "--rounds", "1"]
    command = [sys.executable, "-m", "benchmarks.records", *sizes]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "| `list --json` |" in done.stdout
