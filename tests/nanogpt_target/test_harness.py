"""The protocol of a training run: real processes, a model of a few thousand weights."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ONE_THREAD, MakeCode

from nanogpt_target import __main__ as once
from nanogpt_target.batches import Batches
from nanogpt_target.harness import memory_share
from nanogpt_target.prepare import Prepared, release, stage_before

CPU = torch.device("cpu")


def lines(path: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_run_writes_checkpoint_and_reports(trained: Path) -> None:
    names = {p.name for p in trained.iterdir()}
    assert names == {"model.safetensors", "model.json", "summary.json", "curve.jsonl", "trace.jsonl"}
    summary = json.loads((trained / "summary.json").read_text())
    assert summary["steps"] == 12
    assert summary["tokens"] == 12 * 256
    assert summary["initial_hash"] != summary["final_hash"]
    header = int.from_bytes((trained / "model.safetensors").read_bytes()[:8], "little")
    assert header < 100_000, "not safetensors"


def test_train_without_session_names_the_commands(tiny_code: Path) -> None:
    done = subprocess.run([sys.executable, "train.py"], cwd=tiny_code, capture_output=True, text=True)
    assert done.returncode == 1
    assert "overnight run --target DIR" in done.stderr


def test_seed_determines_weights_and_order(tiny_code: Path, prepared: Prepared, trained: Path, tmp_path: Path) -> None:
    """Equal seeds: test_smoke_test_leaves_run_bit_identical."""
    assert once.train(tiny_code, prepared, tmp_path, "steps:12", 2, ONE_THREAD)["exit"] == 0
    folders = trained, tmp_path / "out"
    losses = [[line["loss"] for line in lines(folder / "curve.jsonl")] for folder in folders]
    assert losses[0] != losses[1]
    hashes = [json.loads((folder / "summary.json").read_text())["initial_hash"] for folder in folders]
    assert hashes[0] != hashes[1]


def test_training_waits_for_released_data(tiny_code: Path, prepared: Prepared, tmp_path: Path) -> None:
    run = once.train(tiny_code, prepared, tmp_path, "tokens:1000", 1, ONE_THREAD)
    kinds = [event["event"] for event in run["events"]]
    assert kinds[:3] == ["ready", "start", "step"]
    assert kinds[-1] == "saved"
    assert run["events"][-1]["tokens"] == 1024  # four steps


def test_time_budget_ends_run_and_its_schedule_repeats_it(tiny_code: Path, prepared: Prepared, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for work in (first, second):
        work.mkdir()
    assert once.train(tiny_code, prepared, first, "seconds:0.7", 5, ONE_THREAD)["exit"] == 0
    progress = [line["progress"] for line in lines(first / "out" / "trace.jsonl")[1:]]
    assert progress == sorted(progress)
    assert progress[-1] < 1.0
    schedule = {"OVERNIGHT_SCHEDULE": str(first / "out" / "trace.jsonl")}
    once.train(tiny_code, prepared, second, "seconds:9", 5, {**ONE_THREAD, **schedule})
    found = [json.loads((work / "out" / "summary.json").read_text()) for work in (first, second)]
    assert found[0]["steps"] == found[1]["steps"]
    assert found[0]["final_hash"] == found[1]["final_hash"]


def test_loss_that_is_not_finite_ends_run(
    tiny_code: Path, code_with: MakeCode, prepared: Prepared, tmp_path: Path
) -> None:
    source = (tiny_code / "train.py").read_text()
    assert source.count("run.finish_step(loss)") == 1
    code = code_with(source.replace("run.finish_step(loss)", "run.finish_step(loss * float('inf'))"))
    work = tmp_path / "work"
    work.mkdir()
    run = once.train(code, prepared, work, "steps:5", 1, ONE_THREAD)
    assert run["exit"] == 3
    assert run["events"][-1] == {"event": "diverged", "step": 1}
    assert not (work / "out" / "model.safetensors").exists()


def test_memory_share_is_at_most_one() -> None:
    assert memory_share(20, 80 << 30) == 0.25
    assert memory_share(76, 24 << 30) == 1.0


# batches


@pytest.fixture
def data(prepared: Prepared, tmp_path: Path) -> Path:
    stage_before(prepared, tmp_path)
    release(prepared, tmp_path)
    return tmp_path


def take(data: Path, seed: int, rows: int, count: int) -> np.ndarray:
    batches = Batches(data, seed, CPU)
    found = [batches.next(rows) for _ in range(count)]
    batches.close()
    assert all(torch.equal(ids[:, 1:], targets[:, :-1]) for ids, targets in found)
    return np.concatenate([ids.numpy() for ids, _ in found])


def test_epoch_has_every_row_once(data: Path, prepared: Prepared) -> None:
    rows = np.fromfile(data / "train-00000.bin", np.uint16).reshape(-1, 33)
    found = take(data, 3, 1, 2 * len(rows))
    epochs = found[: len(rows)], found[len(rows) :]
    wanted = sorted(row[:-1].tobytes() for row in rows.astype(np.int64))
    assert [sorted(row.tobytes() for row in epoch) for epoch in epochs] == [wanted, wanted]
    assert not np.array_equal(*epochs)


def test_seed_determines_batch_order(data: Path) -> None:
    assert np.array_equal(take(data, 1, 4, 9), take(data, 1, 4, 9))
    assert not np.array_equal(take(data, 1, 4, 9), take(data, 2, 4, 9))
    assert (take(data, 1, 4, 9)[:, 0] == 0).all()


def test_batch_size_may_change_during_run(data: Path) -> None:
    batches = Batches(data, 1, CPU)
    shapes = [tuple(batches.next(rows)[0].shape) for rows in (2, 2, 5, 1)]
    batches.close()
    assert shapes == [(2, 32), (2, 32), (5, 32), (1, 32)]


def test_import_has_no_effect_and_checkpoint_gives_finite_logits(tiny_code: Path, trained: Path) -> None:
    program = (
        "import torch, train\n"
        "print(sorted(n for n in ('GPT', 'load', 'main') if hasattr(train, n)))\n"
        f"model = train.load({str(trained)!r}, 'cpu')\n"
        "ids = torch.arange(64).reshape(2, 32)\n"
        "a, b = model(ids), model(ids)\n"
        "print(tuple(a.shape), a.dtype, torch.equal(a, b), bool(a.isfinite().all()))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tiny_code, capture_output=True, text=True)
    assert done.stdout.splitlines() == ["['GPT', 'load', 'main']", "(2, 32, 320) torch.float32 True True"], done.stderr
    assert done.stderr == ""
