"""Trials of the real trainer, scored by the real scorer: what counts comes from outside of the edited code."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from targets import git

from agent.commands import make_target
from agent.config import load_target
from agent.repo import Repo
from agent.trial import Experiment
from agent.types import Measurement
from nanogpt_target.prepare import prepare
from sandbox import make_sandbox
from sandbox.types import Device

SMALL = {
    "tokens = 81920": "steps = 12",
    "wall_seconds = 20": "wall_seconds = 60",
    "score_seconds = 60": "score_seconds = 90",
    "validation_tokens = 40000": "validation_tokens = 4000",
    "test_tokens = 40000": "test_tokens = 4000",
    "train_bytes = 3000000": "train_bytes = 400000",
    "vocab_size = 512": "vocab_size = 300",
    "sequence_length = 128": "sequence_length = 64",
    "* 128": "* 64",
}


class Bench:
    """The demo preset made smaller still, its data, and commits of edited versions of its train.py."""

    def __init__(self, folder: Path):
        self.folder = folder / "target"
        make_target(self.folder, "demo")
        toml = (self.folder / "target.toml").read_text()
        for old, new in SMALL.items():
            toml = re.sub(rf"(?m){re.escape(old)}\b", new, toml)
        (self.folder / "target.toml").write_text(toml)
        git(self.folder, "commit", "-qam", "Smaller")
        self.target, _ = load_target(self.folder)
        self.repo = Repo(self.folder)
        self.source = self.repo.read(self.repo.head(), "train.py")
        self.prepared = prepare(self.target.data, folder / "cache")
        self.scratch = folder / "runs"

    def commit(self, *edits: tuple[str, str]) -> str:
        text = self.source
        for old, new in edits:
            assert text.count(old) >= 1, old
            text = text.replace(old, new, 1)
        return (
            self.repo.build(self.repo.head(), {"train.py": text}, "Edit\n", 1_700_000_000)
            if edits
            else self.repo.head()
        )

    def measure(self, *edits: tuple[str, str], seed: int = 1, budget: Mapping[str, Any] | None = None) -> Measurement:
        import dataclasses

        target = self.target
        if budget:
            target = dataclasses.replace(target, budget=dataclasses.replace(target.budget, **budget))
        experiment = Experiment(
            self.repo, target, make_sandbox("process"), Device("cpu", threads=2), "test", self.prepared
        )
        commit = self.commit(*edits)
        self.last = self.scratch / f"{commit[:8]}-{seed}"
        self.experiment = experiment
        return experiment.measure(commit, "screen", seed, self.last, "trace", 0, lambda _phase, _info: None)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("bench"))


def test_an_honest_trial_is_trained_scored_and_written_down(bench: Bench) -> None:
    run = bench.measure()
    assert run.status == "ok", run.reason
    assert run.value is not None
    assert 1.5 < run.value < math.log2(300)
    assert not run.self_reported
    assert run.metrics["steps"] == 12
    assert {"startup", "training", "scoring"} <= run.seconds.keys()
    assert run.initial_hash
    for name in ("model.safetensors", "train.log", "curve.jsonl", "trace.jsonl", "result.json"):
        assert (bench.last / name).stat().st_size > 0
    test = bench.experiment.score_test(run.commit, bench.last, 1, lambda _phase, _info: None)
    assert test is not None
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


def test_training_on_after_the_budget_is_seen_from_outside(bench: Bench) -> None:
    edit = ("    harness.save(", "    import time\n    time.sleep(600)\n    harness.save(")
    run = bench.measure(edit, budget={"kind": "seconds", "amount": 1.0, "wall_seconds": 1.0})
    assert (run.status, run.value) == ("timeout", None)
    assert "training took more than" in run.reason


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


def test_leaving_without_training_is_a_crash(bench: Bench) -> None:
    run = bench.measure(("def main() -> None:\n", "def main() -> None:\n    raise SystemExit(0)\n"))
    assert (run.status, run.value) == ("crash", None)
    assert run.reason == "ended without training: it never asked for the clock to start"
