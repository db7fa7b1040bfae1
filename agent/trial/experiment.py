"""One training run of one commit: export, train in the sandbox under the host's clock, score outside, measure.

The trial reports its own times and losses as information. What counts comes from here: the host's monotonic clock,
and a scorer that is a process of its own and the only one that has validation text.
"""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from agent.errors import EnvironmentProblem, Interrupted
from agent.target import Target
from agent.text import decisive_line, is_error
from agent.trial import mounts
from agent.trial.compile_cache import FILE, NOTHING, Compiled
from agent.trial.outputs import CHECKPOINT, MOST, REPORTS, events, fingerprint, number, out_of_memory, summary
from agent.trial.scoring import Scoring
from agent.trial.workspace import workspace
from agent.types import Failure, Measurement, Progress, Role
from sandbox.types import Device, Job, Limits, Mount, Outcome, Running, Sandbox

if TYPE_CHECKING:
    from nanogpt_target.prepare import Prepared

# Of our package, what a trial and its model process import. With the rest it could make the training data of the
# built-in corpus from the standard library before the clock starts.
FROZEN = ("__init__.py", "batches.py", "channel.py", "harness.py", "model_server.py")
SCHEDULE = ".overnight-schedule.jsonl"  # in the exported code: the trace that a run has to follow
DONE = "done"  # between phases: time of the host's own, which is in no phase
_SHOWN = ("steps", "tokens", "train_loss", "parameters", "tokens_per_second", "train_seconds", "mfu")  # of summary.json


class Source(Protocol):
    """Where the code of commits comes from: a ``Repo``, or what was sent of one."""

    def export(self, commit: str, directory: Path) -> None: ...
    def close(self) -> None: ...


@dataclass
class _Clock:
    """Seconds per phase, by the host's monotonic clock."""

    phase: str = "startup"
    since: float = 0.0

    def __post_init__(self) -> None:
        self.since = time.monotonic()
        self.seconds: dict[str, float] = {}

    @property
    def age(self) -> float:
        return time.monotonic() - self.since

    def enter(self, phase: str) -> None:
        if self.phase != DONE:
            self.seconds[self.phase] = round(self.seconds.get(self.phase, 0.0) + self.age, 3)
        self.phase, self.since = phase, time.monotonic()


class Experiment:
    """Trains and scores commits of one target in one sandbox."""

    def __init__(
        self,
        repo: Source,
        target: Target,
        sandbox: Sandbox,
        device: Device,
        owner: str,
        prepared: Prepared | None = None,
        stop_now: Callable[[], bool] = lambda: False,
        compiled: Compiled = NOTHING,
    ):
        self.repo, self.target, self.sandbox, self.device = repo, target, sandbox, device
        self.owner, self.prepared, self._stop_now, self._compiled = owner, prepared, stop_now, compiled
        if target.score == "trusted" and prepared is None:
            raise EnvironmentProblem("a target with a trusted score needs prepared data: run `overnight prepare`.")

    def measure(
        self,
        commit: str,
        role: Role,
        seed: int,
        directory: Path,
        trace: str,
        attempt: int,
        progress: Progress,
        schedule: Path | None = None,
    ) -> Measurement:
        """Train and score ``commit`` once. ``directory`` receives train.log, result.json, curve.jsonl.

        ``schedule`` is the trace.jsonl of an earlier run, whose progress is followed step by step instead of the clock.

        Raises:
            SandboxBroken, EnvironmentProblem: the machinery failed; the commit is not to blame.
            Interrupted: ``stop_now`` turned true.
        """
        directory.mkdir(parents=True, exist_ok=True)
        clock = _Clock()
        with workspace(self.owner) as work:
            code, data = work / "code", work / "data"
            self._stage(commit, code, data)
            self._compiled.stage(data)
            told = {"OVERNIGHT_KEEP_COMPILED": "1"} if self._compiled.missing(role) else {}
            if schedule is not None:
                shutil.copyfile(schedule, code / SCHEDULE)
                (code / SCHEDULE).chmod(0o644)
                told["OVERNIGHT_TRACE"] = "{code}/" + SCHEDULE
            outcome, failure = self._train(code, data, directory, seed, clock, progress, told)
            if "OVERNIGHT_KEEP_COMPILED" in told:
                self._compiled.take(directory)
            value: float | None = None
            metrics: dict[str, float] = {}
            reported: dict[str, Any] = {}
            if failure is None:
                reported = summary(outcome.collected.get("summary.json"))
                if self.target.score == "stdout":
                    value, failure = self._printed_value(directory / "train.log")
                else:
                    clock.enter("scoring")
                    value, metrics, failure = self._score(code, directory, "validation", progress)
                    clock.enter(DONE)
        measurement = Measurement(
            commit=commit,
            role=role,
            seed=seed,
            device=self.device.uuid or self.device.kind,
            status=failure.status if failure else "ok",
            value=None if failure else value,
            metrics={
                **{k: v for k in _SHOWN if (v := number(reported.get(k))) is not None and abs(v) < MOST},
                **_vram(outcome),
                **metrics,
            },
            seconds=clock.seconds,
            peak_memory_gb=outcome.peak_memory_gb,
            reason=failure.reason if failure else "; ".join(outcome.problems),
            log_tail=outcome.log_tail[-4000:] if failure else "",
            self_reported=self.target.score == "stdout",
            trace=trace,
            initial_hash=fingerprint(reported.get("initial_hash")),
            attempt=attempt,
            device_type=self.device.type,
        )
        (directory / "result.json").write_text(json.dumps({"status": measurement.status, "value": measurement.value}))
        return measurement

    def score_test(self, commit: str, directory: Path, progress: Progress) -> tuple[float | None, Failure | None]:
        """The test split's value of the checkpoint that a measured run left in ``directory``, or why there is none.

        A target that scores itself has no test split: neither.
        """
        if self.target.score != "trusted":
            return None, None
        if not (directory / CHECKPOINT[0].name).exists():
            return None, Failure("crash", "the checkpoint is gone")
        with workspace(self.owner) as work:
            self._stage(commit, work / "code", work / "data")
            value, _, failure = self._score(work / "code", directory, "test", progress)
            return value, failure

    # training

    def _stage(self, commit: str, code: Path, data: Path) -> None:
        code.mkdir()
        data.mkdir()
        self.repo.export(commit, code)
        if self.prepared is not None:
            import nanogpt_target
            from nanogpt_target.prepare import stage_before

            frozen = code / "nanogpt_target"  # the installed package, never the tree's own copy of it
            shutil.rmtree(frozen, ignore_errors=True)
            frozen.mkdir()
            for name in FROZEN:
                shutil.copyfile(Path(nanogpt_target.__file__).with_name(name), frozen / name)
            stage_before(self.prepared, data)
        for place in (code, *code.rglob("*")):
            place.chmod(0o755 if place.is_dir() else 0o644)

    def _train(
        self,
        code: Path,
        data: Path,
        directory: Path,
        seed: int,
        clock: _Clock,
        progress: Progress,
        told: Mapping[str, str],
    ) -> tuple[Outcome, Failure | None]:
        trusted = self.target.score == "trusted"
        extra = (FILE,) if "OVERNIGHT_KEEP_COMPILED" in told else ()
        argv = ["{python}" if w in ("python", "python3") else w for w in self.target.train]
        job = Job(
            argv=mounts.command(self.target, argv),
            mounts={"code": Mount(code), "data": Mount(data), **mounts.stage(self.target, code)},
            workdir="code",
            env={
                "OVERNIGHT_DATA": "{data}",
                "OVERNIGHT_OUT": "{out}",
                "OVERNIGHT_SEED": str(seed),
                "OVERNIGHT_BUDGET": self.target.budget.encoded,
                **told,
                **self._hardware(),
            },
            limits=self._limits(),
            device=self.device,
            collect=(*CHECKPOINT, *REPORTS, *extra) if trusted else (),
            collect_to=directory,
            log=directory / "train.log",
            masked=self.prepared.masked if self.prepared else (),
            owner=self.owner,
        )
        if not trusted:
            clock.enter("training")  # a foreign trainer says nothing of its start-up
        running = self.sandbox.start(job)
        try:
            late, last = self._follow(running, clock, data, progress)
        except BaseException:
            running.kill()
            running.finish()
            raise
        outcome = running.finish()
        phase = clock.phase
        clock.enter(DONE)
        return outcome, self._judge_run(outcome, late, last, phase, clock.seconds, trusted)

    def _follow(self, running: Running, clock: _Clock, data: Path, progress: Progress) -> tuple[str, Mapping[str, Any]]:
        """Read the job's events until it ends; release the data and start the clock when it is ready.

        Returns: why the job was killed ("" if it ended by itself), and its last event.
        """
        budget = self.target.budget
        last: Mapping[str, Any] = {}
        while True:
            bound = budget.startup_seconds if clock.phase == "startup" else budget.kill_seconds
            if clock.age > bound:
                running.kill()
                return f"{clock.phase} took more than {bound:.0f} s", last
            if self._stop_now():
                raise Interrupted
            lines = running.read(timeout=min(0.5, max(0.0, bound - clock.age) + 0.01))
            if lines is None:
                return "", last
            for event in events(lines):
                last = event
                if event["event"] == "ready" and clock.phase == "startup" and self.prepared is not None:
                    from nanogpt_target.prepare import release

                    clock.enter("training")
                    release(self.prepared, data)
                elif event["event"] == "step":
                    left = max(0.0, budget.wall_seconds - clock.age) if budget.kind == "seconds" else None
                    progress(clock.phase, {**event, "seconds": clock.age, "seconds_left": left})
            if not lines:
                progress(clock.phase, {"seconds": clock.age})

    def _judge_run(
        self,
        outcome: Outcome,
        late: str,
        last: Mapping[str, Any],
        phase: str,
        seconds: Mapping[str, float],
        trusted: bool,
    ) -> Failure | None:
        if late:
            return Failure("timeout", late)
        failed = outcome.exit_code != 0  # one that ended well may have spoken of memory, and found a smaller batch
        said = failed and re.search(r"OutOfMemoryError|^MemoryError|out of memory", outcome.log_tail, re.M)
        if outcome.out_of_memory or said:
            return out_of_memory(outcome, self.target.memory_gb)
        if last.get("event") == "diverged":
            step = number(last.get("step"))
            return Failure("diverged", f"the loss was not finite{'' if step is None else f' at step {step:.0f}'}")
        caught = f" ({'; '.join(outcome.problems)})" if outcome.problems else ""
        if outcome.signal is not None:
            return Failure("crash", f"killed by signal {outcome.signal}{caught}")
        if outcome.exit_code != 0:
            line = decisive_line(outcome.log_tail)  # the last that it printed need not say why it ended
            status = f"exit status {outcome.exit_code}{f', after: {line}' if line else ''}"
            return Failure("crash", line if is_error(line) else status)
        if trusted and phase != "training":
            return Failure("crash", "ended without training: it never asked for the clock to start")
        if seconds.get("training", 0.0) > self.target.budget.allowed_seconds:
            took = seconds["training"]
            return Failure(
                "over_budget", f"trained for {took:.1f} s, allowed {self.target.budget.allowed_seconds:.1f} s"
            )
        if trusted and CHECKPOINT[0].name not in outcome.collected:
            return Failure("crash", f"left no checkpoint{caught}")
        return None

    def _printed_value(self, log: Path) -> tuple[float | None, Failure | None]:
        """Self-reported: the last match of the target's pattern in what it printed."""
        text = log.read_text(errors="replace") if log.exists() else ""
        found = re.findall(self.target.pattern, text, re.M)
        if not found:
            return None, Failure("crash", f"printed nothing that matches {self.target.pattern!r}")
        if (value := number(found[-1])) is not None:
            return value, None
        said = f"printed {found[-1][:40]!r} as its {self.target.metric}"
        if re.fullmatch(r"[-+]?(nan|inf(inity)?)", found[-1], re.I):
            return None, Failure("diverged", said)
        return None, Failure("crash", f"{said}, which is no number")

    def _score(
        self, code: Path, directory: Path, split: str, progress: Progress
    ) -> tuple[float | None, dict[str, float], Failure | None]:
        assert self.prepared is not None
        scoring = Scoring(
            self.target, self.sandbox, self.device, self.owner, self.prepared, self._hardware(), self._limits(),
            self._stop_now,
        )  # fmt: skip
        return scoring.score(code, directory, split, progress)

    # what a job gets

    def _hardware(self) -> dict[str, str]:
        return {"OVERNIGHT_DEVICE": self.device.kind, "OVERNIGHT_THREADS": str(self.device.threads)}

    def _limits(self) -> Limits:
        """Where the budget is time, more processor than was agreed on would be more training than others have."""
        target, threads = self.target, self.device.threads
        cpus = float(threads) if target.budget.kind == "seconds" and self.device.kind == "cpu" and threads else None
        return Limits(target.memory_gb, target.disk_gb, target.processes, cpus=cpus, vram_gb=target.vram_gb)


def _vram(outcome: Outcome) -> dict[str, float]:
    """The most that was seen of the GPU's memory, from outside."""
    return {} if outcome.peak_vram_gb is None else {"peak_vram_gb": outcome.peak_vram_gb}
