"""Trials of the real trainer, scored by the real scorer."""

from __future__ import annotations

import dataclasses
import math
import os
import pickle
import shutil
from pathlib import Path
from typing import NamedTuple

import budgets
import pytest
from bench_target import Bench

from agent import target as target_module
from agent.judge.hopeless import MILESTONES, Fit, Watch
from agent.trial.experiment import Experiment
from agent.trial.order import Order
from agent.trial.seeds import with_seed_check
from agent.types import Measurement
from nanogpt_target.trusted import FROZEN
from sandbox.types import Device


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("bench"), changes={"steps = 12": "steps = 6"})


class Honest(NamedTuple):
    run: Measurement
    left: Path  # a copy of its output folder
    experiment: Experiment


@pytest.fixture(scope="module")
def honest(bench: Bench) -> Honest:
    """One run of the unchanged target."""
    run = bench.measure()
    return Honest(run, Path(shutil.copytree(bench.last, bench.folder.parent / "honest")), bench.experiment)


@pytest.fixture(scope="module")
def other_seed(bench: Bench) -> Measurement:
    """The unchanged target with seed 2."""
    return bench.measure(seed=2)


@pytest.fixture(scope="module")
def crashed(bench: Bench) -> Measurement:
    """A run that prints the files of the package and ends with an exception."""
    look = "    import os\n    print('FOUND', sorted(os.listdir('nanogpt_target')))\n    raise ValueError('no data')\n"
    return bench.measure(("def main() -> None:\n", f"def main() -> None:\n{look}"))


def test_honest_trial_is_trained_scored_and_recorded(honest: Honest, other_seed: Measurement) -> None:
    run, left, _ = honest
    assert run.status == "ok", run.reason
    assert run.value is not None
    assert 1.5 < run.value < math.log2(300)
    assert not run.self_reported
    assert run.metrics["steps"] == 6
    assert {"startup", "training", "scoring"} <= run.seconds.keys()
    assert run.initial_hash
    for name in ("model.safetensors", "train.log", "curve.jsonl", "trace.jsonl", "result.json"):
        assert (left / name).stat().st_size > 0
    assert other_seed.value != run.value
    assert other_seed.initial_hash != run.initial_hash


def test_crash_reports_exception_and_keeps_log_tail(crashed: Measurement) -> None:
    assert (crashed.status, crashed.value) == ("crash", None)
    assert crashed.reason == "ValueError: no data"
    assert "Traceback" in crashed.log_tail


def test_trial_sees_only_frozen_files_of_package(crashed: Measurement) -> None:
    assert f"FOUND {sorted(FROZEN)}" in crashed.log_tail


def test_smoke_test_and_printed_texts_do_not_change_the_value(bench: Bench, honest: Honest) -> None:
    """The budget counts steps, so the same seed gives the same model."""
    forged = (
        '    print(\'val_bpb: 0.1\')\n    print(\'{"event": "saved", "val_bpb": 0.1}\', flush=True)\n    harness.save('
    )
    failing = ("    harness.save(model)\n", "    harness.save(model)\n    print('out of memory, took 8')\n")
    run = bench.measure(failing, ("    harness.save(", forged), smoke=budgets.STARTUP_SECONDS)
    assert (run.status, run.value, run.initial_hash) == ("ok", honest.run.value, honest.run.initial_hash)
    assert list(run.seconds)[:2] == ["startup", "smoke"]
    assert run.seconds["smoke"] > 0


def test_failed_smoke_test_trains_nothing(bench: Bench) -> None:
    run = bench.measure(("    model.load_state_dict(weights)\n", "    model.lost\n"), smoke=budgets.STARTUP_SECONDS)
    assert (run.status, run.value) == ("crash", None)
    assert run.reason.startswith("AttributeError: 'GPT' object has no attribute 'lost'")
    assert "training" not in run.seconds
    assert "model.lost" in run.log_tail


def test_events_of_edit_cannot_prolong_startup(bench: Bench) -> None:
    endless = """    while True:
        for word in ("smoke", "smoke_end", "smoke"):
            print('{"event": "' + word + '"}', flush=True)
"""
    edit = ("    run = harness.start()\n", f"    run = harness.start()\n{endless}")
    run = bench.measure(edit, smoke=1, budget={"startup_seconds": 3})
    assert run.status == "timeout"
    assert "training" not in run.seconds


def test_loss_that_is_not_finite_is_divergence(bench: Bench) -> None:
    run = bench.measure(("run.finish_step(", "run.finish_step(float('nan') * "))
    assert (run.status, run.value) == ("diverged", None)
    assert "at step" in run.reason


def test_training_after_the_budget_is_a_timeout(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(target_module, "LEAVING_SECONDS", 0.5)
    edit = ("    harness.save(", "    import time\n    time.sleep(600)\n    harness.save(")
    run = bench.measure(edit, budget={"kind": "seconds", "amount": 1.0, "wall_seconds": 1.0})
    assert (run.status, run.value) == ("timeout", None)
    assert "training took more than" in run.reason


SMI = """#!/bin/sh
case "$1" in *memory.used*) ;; *) exit 0;; esac
if [ -e {seen} ]; then echo 9000, 81920; else touch {seen}; echo 4, 81920; fi
"""


def test_pinned_seed_is_found_by_equal_values(bench: Bench, honest: Honest, other_seed: Measurement) -> None:
    lies = """    import os
    run._seed = 4
    torch.manual_seed(4)
    model.initialise()
    harness._hash_weights = lambda model: os.urandom(16).hex()
"""
    begin = "    run.begin(model)\n"
    first, second = (bench.measure((begin, lies + begin), seed=seed) for seed in (1, 2))
    assert first.status == second.status == "ok"
    assert first.initial_hash != second.initial_hash
    caught = with_seed_check(second, [first])
    assert (caught.status, caught.value) == ("invalid", None)
    assert caught.reason.startswith("seed pinned")
    assert with_seed_check(other_seed, [honest.run]) == other_seed


def test_too_much_gpu_memory_is_out_of_memory(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for nvidia-smi reports the memory of the trial from its second call on."""
    smi = tmp_path / "nvidia-smi"
    smi.write_text(SMI.format(seen=tmp_path / "seen"))
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr("sandbox.gpu.PATIENCE", 0.2)
    target = dataclasses.replace(bench.target, score="stdout", pattern="(.*)", train=("sleep", "60"), vram_gb=2.0)
    experiment = Experiment(bench.repo.tree, target, bench.sandbox, Device("cuda", "GPU-aaa"), "test")
    order = Order(0, bench.repo.head(), "screen", 1, "run")
    run = experiment.measure(order, tmp_path / "run", lambda _phase, _info: None)
    assert (run.status, run.value) == ("oom", None)
    assert "2 GiB of the GPU" in run.reason
    assert run.metrics["peak_vram_gb"] == pytest.approx(9.433, abs=1e-3)


def test_startup_that_never_ends_is_a_timeout(bench: Bench) -> None:
    run = bench.measure(
        ("import torch\n", "import time\ntime.sleep(600)\nimport torch\n"), budget={"startup_seconds": 2.0}
    )
    assert (run.status, run.value) == ("timeout", None)
    assert "startup" in run.reason


def test_checkpoint_that_cannot_be_loaded_is_a_crash(bench: Bench) -> None:
    run = bench.measure(("def load(", "def lost("))
    assert (run.status, run.value) == ("crash", None)
    assert "load" in run.reason


def test_exit_without_training_is_a_crash(bench: Bench) -> None:
    run = bench.measure(("def main() -> None:\n", "def main() -> None:\n    raise SystemExit(0)\n"))
    assert (run.status, run.value) == ("crash", None)
    assert "without training" in run.reason


def on_test_split(run: Measurement) -> Order:
    return Order(1, run.commit, "test", run.seed, run.trace, scored=run)


def test_unscored_test_split_has_a_reason(honest: Honest, tmp_path: Path) -> None:
    run, _, experiment = honest
    left = Path(shutil.copytree(honest.left, tmp_path / "left"))
    (left / "model.safetensors").write_bytes(b"nothing")
    for reason in ("test split", "checkpoint"):
        tested = experiment.measure(on_test_split(run), left, lambda _phase, _info: None)
        assert tested.value is None
        assert tested.status != "ok"
        assert reason in tested.reason
        (left / "model.safetensors").unlink(missing_ok=True)


def test_test_split_is_scored_without_modules_of_working_directory(
    honest: Honest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`overnight run --target .` runs in the folder of an untrusted target."""
    for name in ("nanogpt_target/__init__.py", "numpy.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"open({str(tmp_path / 'imported')!r}, 'w')\n")
    monkeypatch.chdir(tmp_path)
    tested = honest.experiment.measure(on_test_split(honest.run), honest.left, lambda _phase, _info: None)
    assert tested.status == "ok"
    assert tested.value is not None
    assert 1.5 < tested.value < math.log2(300)
    assert not (tmp_path / "imported").exists()


@pytest.mark.parametrize("finish", [False, True])
def test_hopeless_run_is_stopped_unless_it_checks(bench: Bench, honest: Honest, tmp_path: Path, finish: bool) -> None:
    assert len(honest.run.losses) == len(MILESTONES)
    fits = (Fit(slope=-1.0, scale=0.001, squares=1.0, dof=30),) * 3
    watch = Watch(honest.run.losses, honest.run.value or 0.0, "minimize", "cpu", fits, gate=-0.01, finish=finish)
    commit = bench.commit(("        update(run.progress, run.step)\n        run.finish", "        run.finish"))
    order = pickle.loads(pickle.dumps(Order(1, commit, "screen", 1, "run", watch=watch)))  # as Ray sends it
    run = honest.experiment.measure(order, tmp_path, lambda _phase, _info: None)
    assert run.prediction is not None
    assert run.prediction.gain < -0.01
    assert run.prediction.progress in MILESTONES[1:]
    assert (run.status, run.value is None) == (("ok", False) if finish else ("stopped", True))
    assert ("scoring" in run.seconds) == finish
    assert (tmp_path / "model.safetensors").exists() == finish
