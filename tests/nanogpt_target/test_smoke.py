"""Smoke tests of real training programs: what they find, and that they leave no trace in the run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import ONE_THREAD, MakeCode

from nanogpt_target import __main__ as once
from nanogpt_target.prepare import Prepared

SMOKE = {**ONE_THREAD, "OVERNIGHT_SMOKE": "100"}


def hashes(out: Path) -> tuple[str, str]:
    summary = json.loads((out / "summary.json").read_text())
    return summary["initial_hash"], summary["final_hash"]


def losses(out: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (out / "curve.jsonl").read_text().splitlines()]


def run_edited(
    code_with: MakeCode, tiny_code: Path, prepared: Prepared, work: Path, old: str, new: str, smoke: str = "100"
) -> dict[str, Any]:
    source = (tiny_code / "train.py").read_text()
    assert source.count(old) == 1
    work.mkdir()
    env = {**SMOKE, "OVERNIGHT_SMOKE": smoke}
    return once.train(code_with(source.replace(old, new)), prepared, work, "steps:3", 1, env)


def test_smoke_test_leaves_run_bit_identical(
    tiny_code: Path, prepared: Prepared, trained: Path, tmp_path: Path
) -> None:
    run = once.train(tiny_code, prepared, tmp_path, "steps:12", 1, SMOKE)
    assert run["exit"] == 0
    kinds = [event["event"] for event in run["events"]]
    assert kinds.index("smoke") < kinds.index("smoke_end") < kinds.index("ready")
    assert next(e["outcome"] for e in run["events"] if e["event"] == "smoke_end") == "passed"
    assert hashes(tmp_path / "out") == hashes(trained)
    names = {path.name for path in trained.iterdir()}
    assert {path.name for path in (tmp_path / "out").iterdir()} == {*names, "diagnostics.json"}
    for name in ("curve.jsonl", "trace.jsonl"):
        assert len((tmp_path / "out" / name).read_text().splitlines()) == len((trained / name).read_text().splitlines())
    assert losses(tmp_path / "out") == losses(trained), "the same seed gave another curve"
    found = json.loads((tmp_path / "out" / "diagnostics.json").read_text())
    assert set(found["phases"]) == {"data", "forward", "backward", "optimiser", "other"}
    assert all(ms > 0 for ms in found["phases"].values())
    assert len(found["operations"]) == 10
    groups = {group["name"]: group for group in found["groups"]}
    assert {"embedding", "blocks.attention.q", "head"} <= groups.keys()
    assert all(group[norm] > 0 for group in groups.values() for norm in ("gradient", "update", "weight"))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("share = learning_rate_share(progress)", "share = 1 / (progress - 0.98)"),
        ("    model.load_state_dict(weights)", "    model.load_state_dict(weights['gone'])"),
        ("            return model(ids)", "            return model(ids) + ids.flip(1)[..., None]"),
        ("run.finish_step(loss)", "run.finish_step(loss * float('inf'))"),
    ],
    ids=["late progress", "load", "look-ahead", "loss"],
)
def test_program_that_would_fail_never_starts_training(
    tiny_code: Path, code_with: MakeCode, prepared: Prepared, tmp_path: Path, old: str, new: str
) -> None:
    run = run_edited(code_with, tiny_code, prepared, tmp_path / "work", old, new)
    assert run["exit"] != 0
    kinds = [event["event"] for event in run["events"]]
    assert "smoke" in kinds
    assert "smoke_end" not in kinds
    assert "ready" not in kinds


def test_smoke_test_beyond_bound_decides_nothing(
    tiny_code: Path, code_with: MakeCode, prepared: Prepared, tmp_path: Path
) -> None:
    old, new = "    run = harness.start()", "    import time\n    run = harness.start()\n    time.sleep(2)"
    run = run_edited(code_with, tiny_code, prepared, tmp_path / "work", old, new, smoke="1")
    assert run["exit"] == 0
    assert next(e["outcome"] for e in run["events"] if e["event"] == "smoke_end") == "too slow"


def test_killed_child_kills_the_run(tiny_code: Path, code_with: MakeCode, prepared: Prepared, tmp_path: Path) -> None:
    new = "    run = harness.start()\n    import os\n    os.kill(os.getpid(), 9)"
    run = run_edited(code_with, tiny_code, prepared, tmp_path / "work", "    run = harness.start()", new)
    assert run["exit"] == -9


def test_importing_smoke_starts_nothing() -> None:
    done = subprocess.run([sys.executable, "-c", "import nanogpt_target.smoke"], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
