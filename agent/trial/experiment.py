"""One run of one commit: stage the code, train in the sandbox under the host's clock, score outside, measure.

The trial's own reports of time and loss are information for people. The time comes from the host's monotonic clock. The
value comes from the scorer, a separate process and the only one with validation text.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from agent.errors import EnvironmentProblem, Interrupted
from agent.repo.repo import Tree
from agent.target import Target
from agent.trial import mounts
from agent.trial.order import Order
from agent.trial.outputs import CHECKPOINT, MOST, REPORTS, SHOWN, Score, fingerprint, number, printed_value, summary
from agent.trial.own_packages import write_hiding_module
from agent.trial.scoring import Host, loading_bound, score_of
from agent.trial.training import Trained, Training
from agent.trial.trusted_target import Data, trusted_target
from agent.trial.usual import PROCESSOR
from agent.trial.workspace import workspace
from agent.types import Failure, Measurement, Progress
from sandbox.interpreter import OWN, Interpreter, find_interpreter
from sandbox.types import Collect, Device, Job, Limits, Mount, Sandbox

# The cache of torch.compile: an output of the run that writes it, in the data folder of the others. Only a calibration
# run, which runs the unchanged program, writes the cache: otherwise one trial could choose what the next one computes.
# The host never reads its content.
COMPILED = Collect("compiled.bin", 1 << 29)
SCHEDULE = ".overnight-schedule.jsonl"  # in the exported code: the schedule that a run has to follow


def interpreter_of(target: Target) -> Interpreter:
    """The interpreter of a target's trials outside of Docker. Raises ``EnvironmentProblem`` if it does not start."""
    try:
        return find_interpreter(target.python) if target.python else OWN
    except ValueError as error:
        raise EnvironmentProblem(f"the interpreter {target.python}: {error}.") from None


@dataclass(eq=False)
class Experiment:
    """Trains and scores commits of one target in one sandbox."""

    tree: Callable[[str], Tree]  # the files of a commit
    target: Target
    sandbox: Sandbox
    device: Device
    owner: str
    prepared: Data | None = None
    stop_now: Callable[[], bool] = lambda: False
    compiled: Path | None = None  # file of the session with the cache of torch.compile; None: there is no cache

    def __post_init__(self) -> None:
        self._python = interpreter_of(self.target)
        self._trusted = trusted_target(self.target) if self.target.score == "trusted" else None

    def measure(self, order: Order, directory: Path, progress: Progress) -> Measurement:
        """Make one run.

        Args:
            order: what to run.
            directory: receives train.log, result.json, curve.jsonl and the checkpoint. For an order with ``scored`` it
                already holds the checkpoint.
            progress: called with the phase and what is known of it.

        Raises:
            SandboxBroken, EnvironmentProblem: the machinery failed, not the commit.
            Interrupted: ``stop_now`` is true.
        """
        if order.scored is not None:
            return self._score_test(order, order.scored, directory, progress)
        directory.mkdir(parents=True, exist_ok=True)
        with workspace(self.owner) as work:
            self._stage(order.commit, work)
            trained = self._smoke_and_train(order, self._job(order, work, directory), progress)
            if self._compiles(order) and self.compiled and (left := directory / COMPILED.name).exists():
                left.replace(self.compiled)
            seconds, score = dict(trained.seconds), Score(failure=trained.failure)
            if self._trusted is None and trained.failure is None:
                score = printed_value(directory / "train.log", self.target.pattern, self.target.metric)
            elif trained.failure is None:
                began = time.monotonic()
                score = self._score(order, work, directory, progress)
                seconds["scoring"] = round(time.monotonic() - began, 3)
        measurement = self._measurement(order, trained, score, seconds)
        (directory / "result.json").write_text(json.dumps({"status": measurement.status, "value": measurement.value}))
        return measurement

    def _score_test(self, order: Order, run: Measurement, directory: Path, progress: Progress) -> Measurement:
        """Score the checkpoint of ``run`` in ``directory`` on the test split."""
        score = Score(failure=Failure("crash", "the checkpoint is gone"))
        if (directory / CHECKPOINT[0].name).exists():
            with workspace(self.owner) as work:
                self._stage(run.commit, work)
                score = self._score(order, work, directory, progress)
        if score.failure is None:
            return replace(run, role="test", value=score.value, reason="")
        reason = f"test split could not be scored: {score.failure.reason}"
        return replace(run, role="test", value=None, status=score.failure.status, reason=reason)

    def _stage(self, commit: str, work: Path) -> None:
        """Write the code of a commit to ``work/code``, and the data that it may read to ``work/data``."""
        code, data = work / "code", work / "data"
        code.mkdir()
        data.mkdir()
        self.tree(commit).write(code)
        if self._trusted is not None:
            self._trusted.stage(self.prepared, code, data)
        for place in (code, *code.rglob("*")):
            place.chmod(0o755 if place.is_dir() else 0o644)

    def _compiles(self, order: Order) -> bool:
        """Whether a run must write the cache of torch.compile."""
        return order.role == "calibrate" and self.compiled is not None and not self.compiled.exists()

    def _base(self, work: Path) -> Job:
        """What the jobs of a run have in common."""
        target, device = self.target, self.device
        # with a time budget on the CPU, a run that used more processors than the others would train more
        cpus = float(device.threads) if target.budget.kind == "seconds" and device.kind == "cpu" else 0.0
        hardware = {"OVERNIGHT_DEVICE": device.torch, "OVERNIGHT_THREADS": str(device.threads)}
        if target.vram_gb is not None and device.torch == "cuda":  # the harness limits PyTorch to it
            hardware["OVERNIGHT_VRAM_GB"] = f"{target.vram_gb:g}"
        return Job(
            argv=(),
            mounts={"code": Mount(work / "code")},
            workdir="code",
            env=hardware,
            limits=Limits(
                target.memory_gb, target.disk_gb, target.processes, cpus=cpus or None, vram_gb=target.vram_gb
            ),
            device=device,
            masked=self.prepared.masked if self.prepared else (),
            hides_counters=self._trusted is not None,
            owner=self.owner,
            python=self._python,
        )

    def _job(self, order: Order, work: Path, directory: Path) -> Job:
        """The job of a run, but for its command: all that the order needs is staged in ``work``."""
        target, base, code, data = self.target, self._base(work), work / "code", work / "data"
        mounted = {**base.mounts, "data": Mount(data), **mounts.stage(target, code)}
        env = {"OVERNIGHT_DATA": "{data}", "OVERNIGHT_OUT": "{out}", "OVERNIGHT_BUDGET": target.budget.encoded}
        if self._trusted is None and not target.python:  # a foreign target in Overnight's own interpreter
            write_hiding_module(work / "site")
            mounted["site"] = Mount(work / "site")
            env["PYTHONPATH"] = "{site}"
        env |= {name: str(order.seed) for name in ("OVERNIGHT_SEED", target.seed_env) if name}
        collect: tuple[Collect, ...] = () if self._trusted is None else (*CHECKPOINT, *REPORTS)
        if self._compiles(order):
            env["OVERNIGHT_KEEP_COMPILED"] = "1"
            collect = (*collect, COMPILED) if collect else ()
        elif self.compiled and self.compiled.exists():
            shutil.copyfile(self.compiled, data / COMPILED.name)
        if order.schedule is not None:
            shutil.copyfile(order.schedule, code / SCHEDULE)
            (code / SCHEDULE).chmod(0o644)
            env["OVERNIGHT_SCHEDULE"] = "{code}/" + SCHEDULE
        log = directory / "train.log"
        env |= base.env
        return replace(base, mounts=mounted, env=env, collect=collect, collect_to=directory, log=log)

    def _smoke_and_train(self, order: Order, job: Job, progress: Progress) -> Trained:
        """Train, after the smoke test that ``order`` asks for.

        The harness of a trusted target makes that test within its start-up. The command ``smoke`` of another target
        runs in its own sandbox.
        """
        target = self.target
        if order.watch and order.watch.device_type != self.device.type:  # there the incumbent's curve is another
            order = replace(order, watch=None)
        training = Training(target, order, self.stop_now, progress)
        with_smoke = {**job.env, "OVERNIGHT_SMOKE": f"{order.smoke:g}"} if order.smoke else job.env
        before: Mapping[str, float] = {}
        if (trusted := self._trusted) is not None:
            training.release = lambda: trusted.release(self.prepared, job.mounts["data"].source)
            job = replace(job, env=with_smoke)
        elif order.smoke and target.smoke:
            smoke = replace(job, argv=mounts.command(target, target.smoke), env=with_smoke)
            tested = replace(training, order=replace(order, watch=None), first="smoke").run(self.sandbox, smoke)
            if tested.failure is not None:
                return tested
            before = tested.seconds
        train = mounts.command(target, [*target.train, *_seed_words(target, order.seed)])
        trained = training.run(self.sandbox, replace(job, argv=train))
        return replace(trained, seconds={**before, **trained.seconds})

    def _score(self, order: Order, work: Path, directory: Path, progress: Progress) -> Score:
        """Score the checkpoint that a run left in ``directory``."""
        assert self._trusted is not None
        split, budget, began = "test" if order.scored else "validation", self.target.budget, time.monotonic()
        loading = loading_bound(budget, self.device, order.usual.loading)
        checkpoint, scratch = work / "checkpoint", work / "scorer"
        for folder in (checkpoint, scratch):
            folder.mkdir()
        for item in CHECKPOINT:
            if (directory / item.name).exists():
                shutil.copyfile(directory / item.name, checkpoint / item.name)

        def wait() -> None:
            if self.stop_now():
                raise Interrupted
            progress("scoring", {"seconds": time.monotonic() - began})

        with workspace(self.owner, memory=True) as shared:
            host = Host(
                self.owner, checkpoint, scratch, shared, budget.score_seconds, budget.startup_seconds, loading, wait,
                self.sandbox, self._base(work),
            )  # fmt: skip
            try:
                verdict = self._trusted.score(self.prepared, split, host)
            finally:
                outcomes = host.close()
        return score_of(verdict, outcomes, split, self.target.memory_gb)

    def _measurement(self, order: Order, trained: Trained, score: Score, seconds: Mapping[str, float]) -> Measurement:
        outcome, failure = trained.outcome, score.failure
        reported: dict[str, Any] = {} if trained.failure else summary(outcome.collected.get("summary.json"))
        metrics = {k: v for k in SHOWN if (v := number(reported.get(k))) is not None and abs(v) < MOST}
        if trained.processor:
            metrics[PROCESSOR] = round(trained.processor, 2)
        if outcome.peak_vram_gb is not None:  # measured from outside of the job
            metrics["peak_vram_gb"] = outcome.peak_vram_gb
        return Measurement(
            commit=order.commit,
            role=order.role,
            seed=order.seed,
            device=self.device.uuid or self.device.kind,
            status=failure.status if failure else "ok",
            value=None if failure else score.value,
            metrics={**metrics, **score.metrics},
            seconds=seconds,
            peak_memory_gb=outcome.peak_memory_gb,
            reason=failure.reason if failure else "; ".join(outcome.problems),
            log_tail=outcome.log_tail[-4000:] if failure else "",
            self_reported=self._trusted is None,
            trace=order.trace,
            initial_hash=fingerprint(reported.get("initial_hash")),
            attempt=order.attempt,
            device_type=self.device.type,
            losses=trained.losses,
            prediction=trained.prediction,
        )


def _seed_words(target: Target, seed: int) -> list[str]:
    """The arguments that pass the seed on: ``--seed 7``, or ``--seed=7``."""
    name = target.seed_arg
    return [f"{name}{seed}"] if name.endswith("=") else [name, str(seed)] if name else []
