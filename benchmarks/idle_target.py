"""A target that trains nothing, so that a session over it shows the time that the agent itself takes."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from agent.ledger.events import Event, Observed
from agent.ledger.state import State
from agent.observers.protocol import Observer
from agent.repo.create import make_repository
from agent.rundir.directory import RunDirectory
from agent.session import setup as launch
from agent.settings import make_settings

TRAIN = """import os
import random

# --- hyperparameters ---
RATE = 0.01
# --- end of hyperparameters ---
noise = random.Random(int(os.environ.get("OVERNIGHT_SEED", "0"))).gauss(0, 0.002)
print(f"val_bpb: {3.0 + abs(RATE - 0.1) + noise:.6f}")
"""
TOML = r"""[target]
name = "idle"
editable = ["train.py"]
train = ["python", "train.py"]
score = "stdout"
pattern = '^val_bpb:\s*(\S+)'

[budget]
seconds = 60

[limits]
memory_gb = 1

[[hyperparameters]]
name = "RATE"
low = 0.0001
high = 1.0
log = true
"""


def make_target(folder: Path, train: str = TRAIN) -> Path:
    folder.mkdir(parents=True)
    (folder / "train.py").write_text(train)
    (folder / "target.toml").write_text(TOML)
    make_repository(folder, "Begin")
    return folder


class Clock(Observer):
    """Records when each trial ended, and calls ``look`` with its number."""

    def __init__(self, look: Callable[[int], None] = lambda _trial: None) -> None:
        self.ended: dict[int, float] = {}
        self._look = look

    def event(self, event: Event, state: State) -> None:
        if isinstance(event, Observed):
            self.ended[event.trial] = time.monotonic()
            self._look(event.trial)

    def seconds(self) -> dict[int, float]:
        """Duration of each trial but the baseline: from the end of the trial before it."""
        return {k: t - self.ended[k - 1] for k, t in self.ended.items() if k - 1 in self.ended}


def session(target: Path, runs: Path, view: Observer, **settings: Any) -> RunDirectory:
    """Random search with one run per trial, so that all trials cost the same."""
    usual = {"proposer": "random", "policy": "greedy", "calibrate": 1, "device": "cpu", "sandbox": "process"}
    given = {**usual, "target": str(target), "runs": str(runs), "tag": "night", **settings}
    return launch.start(make_settings(given, None), view, lambda _words: None)
