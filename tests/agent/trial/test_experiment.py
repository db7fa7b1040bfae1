"""Trials of the real trainer, scored by the real scorer: what counts comes from outside of the edited code."""

from __future__ import annotations

import dataclasses
import math
import os
import shutil
from pathlib import Path
from typing import NamedTuple

import pytest
from bench_target import Bench, start_badly
from openai_server import Answer, OpenAIServer
from sessions import check_whole, start, state_of

from agent import target as target_module
from agent.trial.experiment import FROZEN, Experiment
from agent.trial.seeds import with_seed_check
from agent.types import Measurement
from sandbox.types import Device


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("bench"), changes={"steps = 12": "steps = 6"})


class Honest(NamedTuple):
    run: Measurement
    left: Path  # a copy of the folder that it left
    experiment: Experiment


@pytest.fixture(scope="module")
def honest(bench: Bench) -> Honest:
    """One run of the unchanged target."""
    run = bench.measure()
    return Honest(run, Path(shutil.copytree(bench.last, bench.folder.parent / "honest")), bench.experiment)


def test_an_honest_trial_is_trained_scored_and_written_down(bench: Bench, honest: Honest) -> None:
    run, left, experiment = honest
    assert run.status == "ok", run.reason
    assert run.value is not None
    assert 1.5 < run.value < math.log2(300)
    assert not run.self_reported
    assert run.metrics["steps"] == 6
    assert {"startup", "training", "scoring"} <= run.seconds.keys()
    assert run.initial_hash
    for name in ("model.safetensors", "train.log", "curve.jsonl", "trace.jsonl", "result.json"):
        assert (left / name).stat().st_size > 0
    test, failure = experiment.score_test(run.commit, left, lambda _phase, _info: None)
    assert test is not None
    assert failure is None
    assert 1.5 < test < math.log2(300)
    again = bench.measure()
    assert again.value == run.value, "steps are counted: the same seed gives the same model"
    other = bench.measure(seed=2)
    assert other.value != run.value
    assert other.initial_hash != run.initial_hash


def test_a_crash_names_its_exception_and_keeps_the_end_of_the_log(bench: Bench) -> None:
    run = bench.measure(("def main() -> None:\n", "def main() -> None:\n    raise ValueError('no such luck')\n"))
    assert (run.status, run.value) == ("crash", None)
    assert run.reason == "ValueError: no such luck"
    assert "Traceback" in run.log_tail


def test_a_loss_that_is_not_finite_is_divergence(bench: Bench) -> None:
    run = bench.measure(("run.finish_step(", "run.finish_step(float('nan') * "))
    assert (run.status, run.value) == ("diverged", None)
    assert run.reason.startswith("the loss was not finite at step")


def test_training_on_after_the_budget_is_seen_from_outside(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(target_module, "LEAVING_SECONDS", 0.5)
    edit = ("    harness.save(", "    import time\n    time.sleep(600)\n    harness.save(")
    run = bench.measure(edit, budget={"kind": "seconds", "amount": 1.0, "wall_seconds": 1.0})
    assert (run.status, run.value) == ("timeout", None)
    assert "training took more than" in run.reason


SMI = """#!/bin/sh
case "$1" in *memory.used) ;; *) exit 0;; esac
if [ -e {seen} ]; then echo 9000; else touch {seen}; echo 4; fi
"""


def test_a_seed_that_is_pinned_behind_a_false_report_is_seen_by_its_value(bench: Bench) -> None:
    """Weights and order of the data are those of one seed; only what is reported of them differs."""
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
    assert caught.reason == "seed pinned: equal values under different seeds"
    other = bench.measure(seed=2)
    assert with_seed_check(other, [bench.measure()]) == other


def test_one_that_ends_well_may_speak_of_memory(bench: Bench) -> None:
    run = bench.measure(("    harness.save(model)\n", "    harness.save(model)\n    print('out of memory, took 8')\n"))
    assert run.status == "ok", run.reason


def test_a_trial_sees_of_our_package_what_it_imports(bench: Bench) -> None:
    """With the rest it could make the training data of the built-in corpus before the clock starts."""
    look = "    print('FOUND', sorted(os.listdir('nanogpt_target')))\n    raise SystemExit(5)\n"
    run = bench.measure(("    run.begin(model)\n", "    import os\n" + look))
    assert f"FOUND {sorted(FROZEN)}" in run.log_tail


def test_too_much_of_the_gpu_s_memory_is_out_of_memory(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a GPU that a stand-in for nvidia-smi invents: all but the first look show what the trial has taken."""
    smi = tmp_path / "nvidia-smi"
    smi.write_text(SMI.format(seen=tmp_path / "seen"))
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr("sandbox.gpu.PATIENCE", 0.2)
    target = dataclasses.replace(bench.target, score="stdout", pattern="(.*)", train=("sleep", "60"), vram_gb=2.0)
    experiment = Experiment(bench.repo, target, bench.sandbox, Device("cuda", "GPU-aaa"), "test")
    run = experiment.measure(bench.repo.head(), "screen", 1, tmp_path / "run", "t", 0, lambda _phase, _info: None)
    assert (run.status, run.value) == ("oom", None)
    assert run.reason == "out of memory (used more than 2 GiB of the GPU's memory)"
    assert run.metrics["peak_vram_gb"] == pytest.approx(9.433, abs=1e-3)


def test_a_start_that_never_ends_is_killed(bench: Bench) -> None:
    run = bench.measure(
        ("import torch\n", "import time\ntime.sleep(600)\nimport torch\n"), budget={"startup_seconds": 2.0}
    )
    assert (run.status, run.value) == ("timeout", None)
    assert run.reason == "startup took more than 2 s"


def test_a_model_that_cannot_be_loaded_has_no_score(bench: Bench) -> None:
    run = bench.measure(("def load(", "def lost("))
    assert (run.status, run.value) == ("crash", None)
    assert "load" in run.reason


def test_a_value_that_the_code_prints_or_writes_is_worth_nothing(bench: Bench) -> None:
    forged = (
        '    print(\'val_bpb: 0.1\')\n    print(\'{"event": "saved", "val_bpb": 0.1}\', flush=True)\n    harness.save('
    )
    run = bench.measure(("    harness.save(", forged))
    assert run.status == "ok"
    assert run.value is not None
    assert run.value > 1.5


def test_a_kept_edit_has_a_value_on_the_test_split(bench: Bench, tmp_path: Path) -> None:
    """Also when the present best was measured again between the candidate's run and its verdict."""
    target = tmp_path / "target"
    shutil.copytree(bench.folder, target)
    with OpenAIServer([start_badly(target)], at_end=Answer(text="no more")) as server:
        directory = start(
            target, tmp_path / "runs", proposer="code", trials=1, calibrate=2, threads=1,
            cache=str(bench.folder.parent), llm_base_url=server.base_url,
        )  # fmt: skip
    check_whole(directory, target, 1)
    state = state_of(directory)
    (record,) = state.kept
    again = [run for run in state.baseline_runs if run.role == "incumbent"]
    assert again, "the present best was not measured again: this test shows nothing"
    roles = [run.role for run in record.runs]
    assert roles.count("test") == 1
    assert not list(directory.path.rglob("model.safetensors")), "checkpoints were left behind"


def test_leaving_without_training_is_a_crash(bench: Bench) -> None:
    run = bench.measure(("def main() -> None:\n", "def main() -> None:\n    raise SystemExit(0)\n"))
    assert (run.status, run.value) == ("crash", None)
    assert run.reason == "ended without training: it never asked for the clock to start"


def test_a_test_split_that_cannot_be_scored_says_why(honest: Honest, tmp_path: Path) -> None:
    run, _, experiment = honest
    left = Path(shutil.copytree(honest.left, tmp_path / "left"))
    (left / "model.safetensors").write_bytes(b"nothing")
    value, failure = experiment.score_test(run.commit, left, lambda _phase, _info: None)
    assert value is None
    assert failure is not None
    assert failure.reason
    (left / "model.safetensors").unlink()
    value, failure = experiment.score_test(run.commit, left, lambda _phase, _info: None)
    assert value is None
    assert failure is not None
    assert "checkpoint" in failure.reason
