"""A smaller demo preset with its data, and trials of edited versions of its train.py."""

from __future__ import annotations

import dataclasses
import math
import re
import sys
import tempfile
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import budgets
from targets import git

from agent.cli.init import make_target
from agent.patch.apply import unified_diff
from agent.repo.repo import Repo
from agent.target import load_target
from agent.trial.experiment import Experiment
from agent.trial.order import Order
from agent.trial.usual import UNKNOWN
from agent.types import Measurement, Role
from nanogpt_target.prepare import prepare
from sandbox import make_sandbox
from sandbox.types import Device, Sandbox

_folder = tempfile.TemporaryDirectory(prefix="overnight-test-data-")
CACHE = Path(_folder.name)  # prepared data, the same for all benches of this process
SMALL = {
    "tokens = 65536": "steps = 12",
    "wall_seconds = 120": f"wall_seconds = {budgets.TRAINING_SECONDS}",
    "startup_seconds = 90": f"startup_seconds = {budgets.STARTUP_SECONDS}",
    "score_seconds = 60": f"score_seconds = {budgets.SCORING_SECONDS}",
    "validation_tokens = 40000": "validation_tokens = 4000",
    "test_tokens = 40000": "test_tokens = 4000",
    "train_bytes = 3000000": "train_bytes = 400000",
    "vocab_size = 512": "vocab_size = 300",
    "sequence_length = 128": "sequence_length = 64",
    "* 128": "* 64",
}


def start_badly(folder: Path) -> str:
    """Commit learning rates that are far too low; the reply of a model that restores the old ones."""
    good = (folder / "train.py").read_text()
    bad = re.sub(r"(?m)^(\w*(?:EMBEDDING|MATRIX|SCALAR)_LR) = .*$", r"\1 = 0.0000001  # far too low", good)
    (folder / "train.py").write_text(bad)
    git(folder, "commit", "-qam", "A bad start")
    return f"Subject: Learn\n\n```diff\n{unified_diff(bad, good, 'train.py')}```\n"


class Bench:
    """A target in a git repository with prepared data, and a sandbox for trials of its edits."""

    def __init__(
        self,
        folder: Path,
        sandbox: Sandbox | None = None,
        owner: str = "test",
        changes: Mapping[str, str] | None = None,
    ):
        self.folder, self.owner = folder / "target", owner
        self.sandbox = sandbox or make_sandbox("process")
        make_target(self.folder, "demo")
        toml = (self.folder / "target.toml").read_text()
        for old, new in {**SMALL, **(changes or {})}.items():
            toml = re.sub(rf"(?m){re.escape(old)}\b", new, toml)
        (self.folder / "target.toml").write_text(toml)
        git(self.folder, "commit", "-qam", "Smaller")
        self.target, _ = load_target(self.folder)
        self.repo = Repo(self.folder)
        self.source = self.repo.read(self.repo.head(), "train.py")
        self.prepared = prepare(self.target.data, CACHE)
        self.scratch = folder / "runs"
        self.usual = UNKNOWN

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

    def measure(
        self,
        *edits: tuple[str, str],
        seed: int = 1,
        budget: Mapping[str, Any] | None = None,
        limits: Mapping[str, Any] | None = None,
        role: Role = "screen",
        compiled: Path | None = None,
        smoke: float = 0.0,
    ) -> Measurement:
        """One trial. ``budget`` and ``limits`` replace fields of the target's own."""
        target = dataclasses.replace(
            self.target, budget=dataclasses.replace(self.target.budget, **(budget or {})), **(limits or {})
        )
        device = Device("cpu", threads=1)  # more threads would wait for each other
        self.experiment = Experiment(
            self.repo.tree, target, self.sandbox, device, self.owner, self.prepared, compiled=compiled
        )
        commit = self.commit(*edits)
        self.last = self.scratch / f"{commit[:8]}-{seed}"
        order = Order(0, commit, role, seed, "run", smoke=smoke, usual=self.usual)
        return self.experiment.measure(order, self.last, lambda _phase, _info: None)

    def honest_value(self, directory: Path) -> float:
        """Bits per byte of a checkpoint, computed in one process without the scorer."""
        import numpy as np
        import torch

        module = types.ModuleType("honest_train")
        sys.modules["honest_train"] = module  # dataclasses look their module up
        exec(compile(self.source, "train.py", "exec"), module.__dict__)
        length = self.prepared.sequence_length
        rows = np.fromfile(self.prepared.directory / "validation.bin", np.uint16).reshape(-1, length + 1)
        sizes = torch.from_numpy(np.load(self.prepared.directory / "token_bytes.npy").astype(np.int64))
        ids = torch.from_numpy(rows.astype(np.int64))
        targets = ids[:, 1:]
        logp = torch.log_softmax(module.load(str(directory), "cpu")(ids[:, :-1]).double(), -1)
        taken = logp.gather(-1, targets[..., None])[..., 0][sizes[targets] > 0]
        return -float(taken.sum()) / math.log(2) / int(sizes[targets].sum())
