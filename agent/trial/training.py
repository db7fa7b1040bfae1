"""Runs one training job in a sandbox under the host's clock, and finds the reason of a failure."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from agent.errors import Interrupted
from agent.judge.hopeless import Milestones
from agent.target import Target
from agent.text import decisive_line, is_error
from agent.trial.order import Order
from agent.trial.outputs import CHECKPOINT, events, number, out_of_memory
from agent.types import Failure, Prediction, Progress
from sandbox.types import Job, Outcome, Running, Sandbox

SMOKE_GRACE = 10.0  # seconds beyond its bound in which a training program should end its smoke test


@dataclass(frozen=True)
class Trained:
    """How a training job ended; ``seconds`` per phase by the host's monotonic clock."""

    outcome: Outcome
    failure: Failure | None
    seconds: Mapping[str, float]
    losses: tuple[float, ...] = ()  # at the milestones
    prediction: Prediction | None = None  # of a run that was stopped, or finished to check the prediction
    processor: float = 0.0  # seconds of processor time in start-up; 0 for a target that prints its own value


class _Clock:
    """Seconds per phase."""

    def __init__(self, phase: str) -> None:
        self.phase, self.since = phase, time.monotonic()
        self.seconds: dict[str, float] = {}

    @property
    def age(self) -> float:
        """Seconds in the phase, earlier parts of it included."""
        return self.seconds.get(self.phase, 0.0) + time.monotonic() - self.since

    def enter(self, phase: str) -> None:
        self.seconds[self.phase] = round(self.age, 3)
        self.phase, self.since = phase, time.monotonic()


@dataclass
class Training:
    """One training run."""

    target: Target  # with the bounds of the phases
    order: Order
    stop_now: Callable[[], bool]
    progress: Progress
    release: Callable[[], None] | None = None  # makes the training data appear; None if the target prints its own value
    first: Literal["training", "smoke"] = "training"  # the phase of a job that does not report its start-up
    milestones: Milestones = field(default_factory=Milestones)
    prediction: Prediction | None = None
    processor: float = 0.0  # processor time of start-up, in seconds
    late: str = ""  # why the job was killed
    last: Mapping[str, Any] = field(default_factory=dict)  # the last event that it reported
    _next_sample: float = 0.5  # age of the phase, in seconds

    def run(self, sandbox: Sandbox, job: Job) -> Trained:
        """Run ``job`` to its end.

        Raises:
            SandboxBroken: the machinery failed.
            Interrupted: ``stop_now`` is true.
        """
        running = sandbox.start(job)
        clock = _Clock(self.first if self.release is None else "startup")
        try:
            self._follow(running, clock)
        except BaseException:
            running.kill()
            running.finish()
            raise
        outcome, phase = running.finish(), clock.phase
        clock.enter("")
        failure = self._failure(outcome, clock.seconds)
        if failure is not None and phase == "smoke":
            failure = replace(failure, reason=f"{failure.reason} (smoke test)")
        return Trained(outcome, failure, clock.seconds, self.milestones.losses, self.prediction, self.processor)

    def _follow(self, running: Running, clock: _Clock) -> None:
        """Read the events of the job until it ends; when it is ready, release the data and start the clock."""
        budget, usual, smoke = self.target.budget, self.order.usual, self.order.smoke
        bounds = {"startup": min(budget.startup_seconds, usual.startup), "smoke": smoke + SMOKE_GRACE}
        while True:
            starting = clock.phase == "startup"
            bound = bounds.get(clock.phase, budget.kill_seconds)
            if clock.age > bound:
                self.late = f"{clock.phase} took more than {bound:.0f} s"
            elif starting and self._sample(running, clock.age) > usual.processor:
                self.late = f"startup took more than {usual.processor:.0f} s of processor time"
            if self.late:
                running.kill()
                return
            if self.stop_now():
                raise Interrupted
            lines = running.read(timeout=min(0.5, max(0.0, bound - clock.age) + 0.01))
            if lines is None:
                return
            for event in events(lines):
                self.last = event
                match event["event"], clock.phase:
                    case "smoke", "startup" if smoke and "smoke" not in clock.seconds:
                        clock.enter("smoke")
                    case "smoke_end", "smoke":
                        clock.enter("startup")
                        self._next_sample = 0.0
                    case "ready", "startup" if self.release is not None:
                        self._sample(running, math.inf)
                        clock.enter("training")
                        self.release()
                    case "step", "training":
                        left = max(0.0, budget.wall_seconds - clock.age) if budget.kind == "seconds" else None
                        self.progress("training", {**event, "seconds": clock.age, "seconds_left": left})
                        if self._hopeless(event):
                            running.kill()
                            return
            if not lines:
                self.progress(clock.phase, {"seconds": clock.age})

    def _hopeless(self, event: Mapping[str, Any]) -> bool:
        """Whether the loss curve says that the run is certain to lose, and the run is to be stopped for it."""
        passed = self.milestones.add(number(event.get("progress")), number(event.get("loss")))
        if passed and self.order.watch is not None and self.prediction is None:
            self.prediction = self.order.watch.look(self.milestones.losses)
            return self.prediction is not None and not self.order.watch.finish
        return False

    def _sample(self, running: Running, age: float) -> float:
        """Processor time of start-up, sampled at most twice a second."""
        if age > self._next_sample:
            self.processor, self._next_sample = running.processor_seconds, age + 0.5
        return self.processor

    def _failure(self, outcome: Outcome, seconds: Mapping[str, float]) -> Failure | None:
        """The first reason that applies."""
        if self.prediction is not None and self.order.watch is not None and not self.order.watch.finish:
            found = self.prediction
            foretold = f"predicted {self.target.metric} {found.value:.5g} ± {found.se:.2g}"
            return Failure("stopped", f"at {found.progress:.0%} of the budget: {foretold}".replace("%", " %"))
        if self.late:
            return Failure("timeout", self.late)
        # a job that ended well may mention memory: it may have found a smaller batch
        mentioned = re.search(r"OutOfMemoryError|^MemoryError|out of memory", outcome.log_tail, re.M)
        if outcome.out_of_memory or (outcome.exit_code != 0 and mentioned):
            return out_of_memory(outcome, self.target.memory_gb)
        if self.last.get("event") == "diverged":
            step = number(self.last.get("step"))
            return Failure("diverged", f"the loss was not finite{'' if step is None else f' at step {step:.0f}'}")
        caught = f" ({'; '.join(outcome.problems)})" if outcome.problems else ""
        if outcome.signal is not None:
            return Failure("crash", f"killed by signal {outcome.signal}{caught}")
        if outcome.exit_code != 0:
            line = decisive_line(outcome.log_tail)  # the last printed line need not be the reason
            status = f"exit status {outcome.exit_code}{f', after: {line}' if line else ''}"
            return Failure("crash", line if is_error(line) else status)
        if self.release is not None and "training" not in seconds:
            return Failure("crash", "ended without training: it never asked for the clock to start")
        allowed = self.target.budget.allowed_seconds
        if (took := seconds.get("training", 0.0)) > allowed:
            return Failure("over_budget", f"trained for {took:.1f} s, allowed {allowed:.1f} s")
        if self.release is not None and CHECKPOINT[0].name not in outcome.collected:
            return Failure("crash", f"left no checkpoint{caught}")
        return None
