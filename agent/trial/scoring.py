"""What the host gives the scorer of a trusted target, such as model processes in sandboxes; what its verdict means."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from agent.errors import EnvironmentProblem
from agent.target import Budget
from agent.text import decisive_line
from agent.trial.outputs import Score, number, out_of_memory
from agent.trial.usual import LOADING
from agent.types import Failure, Status
from sandbox.layout import MB
from sandbox.rmtree import remove_tree
from sandbox.types import Device, Job, Mount, Outcome, Running, Sandbox

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


def loading_bound(budget: Budget, device: Device, usual: float) -> float:
    """Seconds in which a model process must have loaded; ``usual``: the bound by the baseline's own time."""
    share = LOAD_SHARE * budget.wall_seconds if budget.kind == "seconds" else 0.0
    return round(min(max(share, LOAD_SECONDS["cpu" if device.kind == "cpu" else "gpu"]), usual), 1)


def score_of(verdict: Mapping[str, Any], outcomes: Sequence[Outcome], split: str, memory_gb: float) -> Score:
    """The score that a scorer's verdict means.

    Args:
        verdict: as ``TrustedTarget.score`` returns it.
        outcomes: of the model processes.
        split: that was scored.
        memory_gb: limit of a model process, in units of 2**30 bytes.

    Raises:
        EnvironmentProblem: the scorer failed, not the checkpoint.
    """
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
        return Score(failure=out_of_memory(starved, memory_gb))
    # output of a model process that has seen text of the split could contain that text
    blind = verdict.get("asked") is False
    line = next((line for o in outcomes if blind and (line := decisive_line(o.log_tail))), "")
    known: Status = status if status in ("invalid", "timeout") else "crash"
    return Score(failure=Failure(known, f"{reason}{f': {line}' if line else ''}"))
