"""The order for one run: what a session asks a worker to do."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from agent.judge.hopeless import Watch
from agent.trial.usual import UNKNOWN, Usual
from agent.types import Measurement, Role


@dataclass(frozen=True)
class Order:
    """One run that a session or a replay asks for."""

    trial: int  # number of the trial; 0 for the baseline
    commit: str
    role: Role
    seed: int
    trace: str  # run path: the directory of the run's files, relative to the run directory (named as in the ledger)
    attempt: int = 0  # how often the session had been resumed
    on: str = ""  # required type of device; "" is any
    scored: Measurement | None = None  # train nothing: score the checkpoint of this run on the test split
    schedule: Path | None = None  # trace.jsonl of an earlier run, followed step by step instead of the clock
    smoke: float = 0.0  # bound of a smoke test before the run, in seconds; 0: none
    watch: Watch | None = None  # when the run is stopped; None: never
    usual: Usual = UNKNOWN  # bounds of start-up and loading
