"""The script for a GPU machine, at toy size on a CPU: every part runs, and its results are written."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import budgets
from places import ROOT

from benchmarks.gpu import tables
from benchmarks.gpu_parts import AGAIN, EDITS, PARTS, spreads


def test_every_part_runs_on_a_cpu(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "benchmarks.gpu", "--out", str(tmp_path), "--dry-run"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=budgets.SESSION_SECONDS)
    results = json.loads((tmp_path / "gpu.json").read_text())
    assert done.returncode == 0, results
    assert list(results) == list(PARTS)
    assert not [name for name, values in results.items() if "error" in values]
    assert results["train"]["loss fell"] is True
    assert results["answers"]["rms of the difference, nats"] == 0  # float32 on a CPU
    assert len(results["noise"]["val_bpb"]["baseline"]) == 1
    assert results["session"]["trials"] == 1
    assert "| tokens/s |" in (tmp_path / "gpu.md").read_text()
    assert not (tmp_path / "work").exists()


def test_spreads_compare_runs_of_equal_seeds() -> None:
    found = spreads({"baseline": [1.0, 2.0, 3.0], AGAIN: [0.5, 1.5, 2.5]})
    assert found == {"sd between seeds": 1.0, "gain under equal seeds": {AGAIN: 0.5}, "sd of a pair": {AGAIN: 0.0}}


def test_edits_apply_to_the_trainer() -> None:
    source = (ROOT / "nanogpt_target" / "train.py").read_text()
    assert [name for name, (old, _) in EDITS.items() if old not in source] == []


def test_no_time_left_is_written_for_each_part(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "benchmarks.gpu", "--out", str(tmp_path), "--dry-run", "--minutes", "0"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=budgets.SESSION_SECONDS)
    assert done.returncode == 1
    assert {values["error"] for values in json.loads((tmp_path / "gpu.json").read_text()).values()} == {"no time left"}


def test_tables_keep_one_line_per_figure() -> None:
    text = tables({"train": {"loss, first and last": [10.0, 3.25], "error": "cut | off\nhere", "MFU": None}})
    assert "| loss, first and last | 10, 3.25 |" in text
    assert "| error | cut / off here |" in text
    assert "| MFU | – |" in text
