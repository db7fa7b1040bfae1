"""One training run of one commit: export, train in the sandbox under the host's clock, score outside, measure.

The trial reports its own times and losses as information. What counts comes from here: the host's monotonic clock,
and a scorer that is a process of its own and the only one that has validation text.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from agent import mounts
from agent.compiled import FILE, NOTHING, Compiled
from agent.config import Target
from agent.errors import EnvironmentProblem
from agent.outputs import MOST, decisive_line, events, fingerprint, is_error, number, summary
from agent.types import Measurement, Role, Status
from agent.workspace import workspace
from sandbox.tree import remove_tree
from sandbox.types import Collect, Device, Job, Limits, Mount, Outcome, Running, Sandbox

if TYPE_CHECKING:
    from nanogpt_target.prepare import Prepared

Progress = Callable[[str, Mapping[str, Any]], None]

CHECKPOINT = (Collect("model.safetensors", 8 << 30), Collect("model.json", 1 << 20))
REPORTS = (Collect("summary.json", 1 << 20), Collect("curve.jsonl", 4 << 20), Collect("trace.jsonl", 32 << 20))
# Of our package, what a trial and its model process import. With the rest it could make the training data of the
# built-in corpus from the standard library before the clock starts.
FROZEN = ("__init__.py", "batches.py", "channel.py", "harness.py", "model_server.py")
SCHEDULE = ".overnight-schedule.jsonl"  # in the exported code: the trace that a run has to follow
LOAD_SHARE = 0.1  # of the seconds of training, that a model process may take to load...
LOAD_SECONDS = {"cpu": 10.0, "cuda": 20.0}  # ...and these at least: a busy machine, a GPU that wakes up
DONE = "done"  # between phases: time of the host's own, which is in no phase
GRACE = 5.0  # seconds that the scorer has to notice the end of a model process by itself
_SHOWN = ("steps", "tokens", "train_loss", "parameters", "tokens_per_second", "train_seconds", "mfu")  # of summary.json


class Interrupted(Exception):
    """The user wants the running trial to end now."""


class Source(Protocol):
    """Where the code of commits comes from: a ``Repo``, or what was sent of one."""

    def export(self, commit: str, directory: Path) -> None: ...
    def close(self) -> None: ...


@dataclass(frozen=True)
class Failure:
    status: Status
    reason: str


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

    # Log-probabilities of the first run of a session that this process has scored, as the scorer wrote them: by owner,
    # data and split. What is better than there at few places is looked at more closely.
    _references: ClassVar[dict[tuple[str, str, str], bytes]] = {}

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
                    value, metrics, failure = self._score(code, directory, "validation", seed, progress)
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

    def score_test(
        self, commit: str, directory: Path, seed: int, progress: Progress
    ) -> tuple[float | None, Failure | None]:
        """The test split's value of the checkpoint that a measured run left in ``directory``, or why there is none.

        A target that scores itself has no test split: neither.
        """
        if self.target.score != "trusted":
            return None, None
        if not (directory / CHECKPOINT[0].name).exists():
            return None, Failure("crash", "the checkpoint is gone")
        with workspace(self.owner) as work:
            self._stage(commit, work / "code", work / "data")
            value, _, failure = self._score(work / "code", directory, "test", seed, progress)
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
            return self._out_of_memory(outcome)
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

    def _out_of_memory(self, outcome: Outcome) -> Failure:
        gpu = [problem for problem in outcome.problems if problem.startswith("used") and "GPU" in problem]
        return Failure("oom", f"out of memory ({'; '.join(gpu) or f'limit {self.target.memory_gb:g} GB'})")

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

    # scoring

    def _score(
        self, code: Path, directory: Path, split: str, seed: int, progress: Progress
    ) -> tuple[float | None, dict[str, float], Failure | None]:
        """The trusted scorer asks two fresh model processes, one after the other, each in a sandbox of its own."""
        assert self.prepared is not None
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
            if earlier := self._references.get(key):
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
            taken = next((self._out_of_memory(o) for o in outcomes if o.out_of_memory), None)
            if problem:
                return None, {}, taken or problem
            if not result.exists():
                raise EnvironmentProblem(f"the scorer failed: {decisive_line(complaint) or 'no message'}")
            verdict = json.loads(result.read_text())
            if verdict["status"] == "ok" and key not in self._references:
                self._references[key] = log_p.read_bytes()
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
                    **self._hardware(),
                },
                limits=self._limits(),
                device=self.device,
                masked=self.prepared.masked if self.prepared else (),
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
            if self._stop_now():
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
