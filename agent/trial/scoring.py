"""Scores a checkpoint: the trusted target's scorer runs on the host, its model processes in sandboxes."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from agent.errors import EnvironmentProblem, Interrupted
from agent.target import Target
from agent.text import decisive_line
from agent.trial.outputs import CHECKPOINT, Score, number, out_of_memory
from agent.trial.trusted_target import Data, TrustedTarget
from agent.trial.usual import LOADING
from agent.trial.workspace import workspace
from agent.types import Failure, Progress, Status
from sandbox.layout import MB
from sandbox.rmtree import remove_tree
from sandbox.types import Job, Mount, Outcome, Running, Sandbox

LOAD_SHARE = 0.1  # of a time budget: how long a model process may load...
# ...and the least, for a busy machine or a GPU that wakes up
LOAD_SECONDS = {"cpu": 10.0, "gpu": 20.0}
LARGEST_MB = 64.0  # file that a model process may write: its compiler needs some; those in the channel are host memory
_COUNTS = ("tokens", "bytes", "noise")  # numbers of a verdict that become metrics


@dataclass(frozen=True)
class ModelProcess:
    """A sandboxed process with the committed code and the checkpoint; ``channel`` is shared with the scorer."""

    running: Running
    channel: Path

    def ended(self) -> bool:
        """Whether the process has ended; waits for its output for 20 ms."""
        return self.running.read(timeout=0.02) is None

    def close(self) -> None:
        """End the process and remove its channel."""
        self.running.kill()
        self.running.finish()
        remove_tree(self.channel)


@dataclass(frozen=True)
class Host:
    """What the host provides to a scorer. Seconds are bounds of its phases."""

    session: str  # label of the session: what a scorer remembers of earlier checkpoints is kept per session
    checkpoint: Path
    folder: Path  # empty; for the scorer alone
    shared: Path  # empty, in memory: for channels to model processes
    seconds: float
    startup_seconds: float
    load_seconds: float
    wait: Callable[[], None]  # to call in every turn of a loop: reports progress, raises Interrupted
    sandbox: Sandbox
    base: Job  # what the jobs of a run have in common, such as code, device and limits
    started: list[Running] = field(default_factory=list)

    def start(self, argv: Sequence[str], channel: Path, writable: Sequence[str]) -> ModelProcess:
        """Start ``argv`` in a sandbox; OVERNIGHT_CHECKPOINT and OVERNIGHT_CHANNEL name its folders.

        ``writable``: names of the files in ``channel`` that it may write.
        """
        largest = max((channel / name).stat().st_size for name in writable) / MB
        base, names = self.base, {"OVERNIGHT_CHECKPOINT": "{checkpoint}", "OVERNIGHT_CHANNEL": "{channel}"}
        shared = {"checkpoint": Mount(self.checkpoint), "channel": Mount(channel, writable=tuple(writable))}
        job = replace(
            base,
            argv=tuple(argv),
            mounts={**base.mounts, **shared},
            env={**names, **base.env},
            limits=replace(base.limits, file_mb=max(largest, LARGEST_MB)),
            forgotten=True,
        )
        running = self.sandbox.start(job)
        self.started.append(running)
        return ModelProcess(running, channel)

    def close(self) -> list[Outcome]:
        """End all model processes."""
        for running in self.started:
            running.kill()
        return [running.finish() for running in self.started]


@dataclass(frozen=True)
class Scoring:
    """Scores checkpoints of one commit on one device."""

    target: Target
    trusted: TrustedTarget
    sandbox: Sandbox
    base: Job  # as in ``Host``
    stop_now: Callable[[], bool]
    most_loading: float  # bound of loading by the baseline's, in seconds

    def score(self, data: Data | None, directory: Path, split: str, progress: Progress) -> Score:
        """Score the checkpoint that a run left in ``directory``.

        Raises:
            SandboxBroken, EnvironmentProblem: the machinery failed, not the checkpoint.
            Interrupted: ``stop_now`` is true.
        """
        budget, owner, began = self.target.budget, self.base.owner, time.monotonic()
        share = LOAD_SHARE * budget.wall_seconds if budget.kind == "seconds" else 0.0
        least = LOAD_SECONDS["cpu" if self.base.device.kind == "cpu" else "gpu"]
        loading = round(min(max(share, least), self.most_loading), 1)

        def wait() -> None:
            if self.stop_now():
                raise Interrupted
            progress("scoring", {"seconds": time.monotonic() - began})

        with workspace(owner, memory=True) as shared, workspace(owner) as work:
            checkpoint, folder = work / "checkpoint", work / "scorer"
            checkpoint.mkdir()
            folder.mkdir()
            for item in CHECKPOINT:
                if (directory / item.name).exists():
                    shutil.copyfile(directory / item.name, checkpoint / item.name)
            host = Host(
                owner, checkpoint, folder, shared, budget.score_seconds, budget.startup_seconds,
                loading, wait, self.sandbox, self.base,
            )  # fmt: skip
            try:
                verdict = self.trusted.score(data, split, host)
            finally:
                outcomes = host.close()
        return self._result(verdict, outcomes, split)

    def _result(self, verdict: Mapping[str, Any], outcomes: Sequence[Outcome], split: str) -> Score:
        status, reason = verdict["status"], str(verdict.get("reason", ""))
        if status == "ok":
            counts = {f"{split}_{k}": v for k in _COUNTS if (v := number(verdict.get(k))) is not None}
            if (loading := number(verdict.get("loading"))) is not None:
                counts[LOADING] = loading
            return Score(float(verdict["value"]), counts)
        if status == "broken":
            raise EnvironmentProblem(f"the scorer failed: {decisive_line(reason) or 'no message'}")
        starved = next((outcome for outcome in outcomes if outcome.out_of_memory), None)
        if starved is not None and status != "invalid":
            return Score(failure=out_of_memory(starved, self.target.memory_gb))
        # output of a model process that has seen text of the split could contain that text
        blind = verdict.get("asked") is False
        line = next((line for o in outcomes if blind and (line := decisive_line(o.log_tail))), "")
        known: Status = status if status in ("invalid", "timeout") else "crash"
        return Score(failure=Failure(known, f"{reason}{f': {line}' if line else ''}"))
