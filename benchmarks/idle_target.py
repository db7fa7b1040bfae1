"""A target that trains nothing, and a session over it: what is left of the time is the agent's."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from agent.ledger.events import Event, Told
from agent.ledger.state import State
from agent.observers.protocol import Observer
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
    identity = ["-c", "user.name=Benchmark", "-c", "user.email=benchmark@localhost", "-c", "commit.gpgSign=false"]
    for words in (["init", "-q"], ["add", "-A"], [*identity, "commit", "-q", "-m", "Begin"]):
        subprocess.run(["git", "-C", str(folder), *words], check=True)
    return folder


class Clock(Observer):
    """The time at which each trial ended, by number; and whatever ``look`` takes down of it."""

    def __init__(self, look: Callable[[int], None] = lambda _trial: None) -> None:
        self.ended: dict[int, float] = {}
        self._look = look

    def event(self, event: Event, state: State) -> None:
        if isinstance(event, Told):
            self.ended[event.trial] = time.monotonic()
            self._look(event.trial)

    def seconds(self) -> dict[int, float]:
        """Of each trial but the baseline: from the end of the one before it."""
        return {k: t - self.ended[k - 1] for k, t in self.ended.items() if k - 1 in self.ended}


def session(target: Path, runs: Path, view: Observer, **settings: Any) -> RunDirectory:
    """``random`` search with one run of each trial, so that the trials are alike."""
    usual = {"proposer": "random", "policy": "greedy", "calibrate": 1, "device": "cpu", "sandbox": "process"}
    given = {**usual, "target": str(target), "runs": str(runs), "tag": "night", **settings}
    return launch.start(make_settings(given, None), view, lambda _words: None)
