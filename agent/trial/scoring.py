"""From a checkpoint to its value: the trusted scorer asks two fresh model processes, one after the other, for logits.

The scorer is a process of the host and the only one that has the tokens of the split; each model process has a sandbox
of its own, with the committed code, the checkpoint and a channel to the scorer.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from agent.errors import EnvironmentProblem, Interrupted
from agent.target import Target
from agent.text import decisive_line
from agent.trial.outputs import CHECKPOINT, number, out_of_memory
from agent.trial.workspace import workspace
from agent.types import Failure, Progress, Status
from sandbox.rmtree import remove_tree
from sandbox.types import Device, Job, Limits, Mount, Running, Sandbox

if TYPE_CHECKING:
    from nanogpt_target.prepare import Prepared

LOAD_SHARE = 0.1  # of the seconds of training, that a model process may take to load...
LOAD_SECONDS = {"cpu": 10.0, "cuda": 20.0}  # ...and these at least: a busy machine, a GPU that wakes up
GRACE = 5.0  # seconds that the scorer has to notice the end of a model process by itself

# Log-probabilities of the first run of a session that this process has scored, as the scorer wrote them: by owner,
# data and split. What is better than there at few places is looked at more closely.
_references: dict[tuple[str, str, str], bytes] = {}


@dataclass(frozen=True)
class Scoring:
    """Where checkpoints of one target are scored, and what the model processes get."""

    target: Target
    sandbox: Sandbox
    device: Device
    owner: str
    prepared: Prepared
    hardware: Mapping[str, str]  # variables that tell a job of its device
    limits: Limits
    stop_now: Callable[[], bool]

    def score(
        self, code: Path, directory: Path, split: str, progress: Progress
    ) -> tuple[float | None, dict[str, float], Failure | None]:
        """The value of the checkpoint in ``directory``, what the scorer counted, and why there is no value if so.

        Raises:
            SandboxBroken, EnvironmentProblem: the machinery failed; the checkpoint is not to blame.
            Interrupted: ``stop_now`` turned true.
        """
        seconds = self.target.budget.score_seconds
        with workspace(self.owner, memory=True) as channels, workspace(self.owner) as work:
            checkpoint = work / "checkpoint"
            checkpoint.mkdir()
            for item in CHECKPOINT:
                if (directory / item.name).exists():
                    shutil.copyfile(directory / item.name, checkpoint / item.name)
            result, between, log_p = work / "result.json", work / "between", work / "log_p.npy"
            sides: list[Running] = []
            argv = [sys.executable, "-m", "nanogpt_target.scorer", "--data", str(self.prepared.directory)]
            argv += ["--split", split, "--result", str(result), "--timeout", f"{seconds:g}"]
            argv += ["--between", str(between), "--log-p", str(log_p), "--load-seconds", f"{self._load_seconds():g}"]
            key = (self.owner, self.prepared.hash, split)
            if earlier := _references.get(key):
                (work / "reference.npy").write_bytes(earlier)
                argv += ["--reference", str(work / "reference.npy")]
            for side in ("a", "b"):
                channel = channels / side
                channel.mkdir()
                channel.chmod(0o777)  # the model process is another, unprivileged user
                argv += [f"--channel-{side}", str(channel)]
            scorer = subprocess.Popen(  # in a session of its own: Ctrl-C in a terminal lets the run end
                argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
            try:
                sides += [self._model_process(code, checkpoint, channels / side) for side in ("a", "b")]
                bound = seconds + self.target.budget.startup_seconds
                problem = self._await_scorer(scorer, sides, channels / "a", between, bound, progress)
            finally:
                scorer.kill()
                for running in sides:
                    running.kill()
                outcomes = [running.finish() for running in sides]
            complaint = scorer.communicate()[1]
            taken = next((out_of_memory(o, self.target.memory_gb) for o in outcomes if o.out_of_memory), None)
            if problem:
                return None, {}, taken or problem
            if not result.exists():
                raise EnvironmentProblem(f"the scorer failed: {decisive_line(complaint) or 'no message'}")
            verdict = json.loads(result.read_text())
            if verdict["status"] == "ok" and key not in _references:
                _references[key] = log_p.read_bytes()
        if verdict["status"] == "ok":
            metrics = {k: float(verdict[k]) for k in ("tokens", "bytes", "noise") if number(verdict.get(k)) is not None}
            return float(verdict["value"]), {f"{split}_{k}": v for k, v in metrics.items()}, None
        if verdict["status"] == "crash" and taken:
            return None, {}, taken
        # what a model process says once it has been asked may be the text that it was asked
        blind = verdict.get("asked") is False
        tail = next((line for o in outcomes if blind and (line := decisive_line(o.log_tail))), "")
        reason = f"{verdict['reason']}{f': {tail}' if tail else ''}"
        status: Status = verdict["status"] if verdict["status"] in ("invalid", "timeout") else "crash"
        return None, {}, Failure(status, reason)

    def _load_seconds(self) -> float:
        budget = self.target.budget
        share = LOAD_SHARE * budget.wall_seconds if budget.kind == "seconds" else 0.0
        return max(share, LOAD_SECONDS[self.device.kind])

    def _model_process(self, code: Path, checkpoint: Path, channel: Path) -> Running:
        return self.sandbox.start(
            Job(
                argv=("{python}", "-m", "nanogpt_target.model_server"),
                mounts={
                    "code": Mount(code),
                    "checkpoint": Mount(checkpoint),
                    "channel": Mount(channel, readonly=False),
                },
                workdir="code",
                env={
                    "OVERNIGHT_CHECKPOINT": "{checkpoint}",
                    "OVERNIGHT_CHANNEL": "{channel}",
                    **self.hardware,
                },
                limits=self.limits,
                device=self.device,
                masked=self.prepared.masked,
                owner=self.owner,
            )
        )

    def _await_scorer(
        self,
        scorer: subprocess.Popen[str],
        sides: list[Running],
        first: Path,
        between: Path,
        bound: float,
        progress: Progress,
    ) -> Failure | None:
        """Wait for the scorer while draining what the model processes print; why it never came to an end, if so.

        After pass A its process ends and its channel, ``first``, goes, so that nothing of it can tell the second one
        what it was asked. The scorer itself notices a model process that ends early; one that dies before it has opened
        the channel only its sandbox can notice.
        """
        start = time.monotonic()
        ended: float | None = None
        alive = list(sides)
        while scorer.poll() is None:
            now = time.monotonic()
            if now - start > bound:
                return Failure("timeout", f"scoring took more than {bound:.0f} s")
            if ended is not None and now - ended > GRACE:
                return Failure("crash", "a model process ended before it had answered")
            if self.stop_now():
                raise Interrupted
            if between.exists():
                alive[0].kill()
                alive.pop(0).finish()
                remove_tree(first)
                ended = None
                between.unlink()
            for running in alive:
                if running.read(timeout=0.02) is None and ended is None:
                    ended = now
            progress("scoring", {"seconds": now - start})
        return None
