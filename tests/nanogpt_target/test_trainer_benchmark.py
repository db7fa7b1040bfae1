"""The trainer benchmark: its FLOP formula, its plain rival, and its errors."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import budgets
import pytest
import torch

from benchmarks import trainer
from nanogpt_target import __main__ as once
from nanogpt_target.prepare import Prepared

ONE_THREAD = {"OVERNIGHT_DEVICE": "cpu", "OVERNIGHT_THREADS": "1", "PLAIN_LR": "1e-2"}


def test_flops_of_small_model(tmp_path: Path) -> None:
    train = trainer.load_trainer("demo", tmp_path)
    model = train.GPT(train.Config(10, 4, depth=2, head_dim=8, width=16, window_pattern="SL"))
    # a layer: 4 W² of attention, 8 W² of the MLP; a head of W V; two scalars a layer. Windows of 2 and of 4 positions
    parameters = 2 * 12 * 16**2 + 16 * 10 + 2 * 2
    seen = (1 + 2 + 2 + 2) / 4 + (1 + 2 + 3 + 4) / 4
    assert trainer.flops_per_token(model) == 6 * parameters + 12 * 16 * seen


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_gpu_benchmark_exits_without_gpu(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="no GPU here"):
        trainer.gpu(1, tmp_path)


def test_plain_trainer_learns_and_is_scored(tmp_path: Path, prepared: Prepared, tiny_code: Path) -> None:
    code = tmp_path / "code"
    shutil.copytree(tiny_code, code)
    shutil.copyfile(trainer.PLAIN, code / "train.py")
    work = tmp_path / "work"
    assert once.train(code, prepared, work, "steps:20", 1, ONE_THREAD)["exit"] == 0
    found = once.score(code, work / "out", prepared, "validation", ONE_THREAD, budgets.SCORING_SECONDS, seed=1)
    uniform = math.log2(prepared.vocab_size) * found["tokens"] / found["bytes"]
    assert found["value"] < uniform


DYING = """
import json, os, signal, sys
bf16, compiled, threads, rows = json.loads(sys.argv[2])
if compiled and rows == 16 and (threads == 1 or "/1-" in sys.argv[1]):  # in each round, or from the second one on
    os.kill(os.getpid(), signal.SIGKILL)
print(json.dumps([1.0, 0.5, 0.5, 100]))
"""


def test_killed_cell_leaves_rest_of_grid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(trainer, "CELL", DYING)
    trainer.grid(2, tmp_path)
    said = capsys.readouterr().out
    rows = [line for line in said.splitlines() if line.startswith(("| bf16", "| float32"))]
    assert len(rows) == 10 * len({line.split()[1] for line in rows})  # of twelve with the same products
    assert all("| 200 | 1.00 | 1.00 |" in row for row in rows)
    assert not any("compiled" in row and "| 16 | 200 |" in row for row in rows)
    assert said.count("ended with -9") == 2 * len({line.split()[1] for line in rows})


def test_grid_exits_if_preset_cell_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer, "CELL", "raise SystemExit('no torch')")
    with pytest.raises(SystemExit, match="the preset's own step does not run here: no torch"):
        trainer.grid(1, tmp_path)
