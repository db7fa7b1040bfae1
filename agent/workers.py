"""Where runs are made: workers beside each other, each with a device of its own.

A session hands out ``Order``s, never more than ``size`` at once, and collects what comes back. It does not see whether
a worker is a thread with a sandbox on this machine (``LocalWorkers``) or a task on a cluster (``agent.cluster``).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from queue import SimpleQueue
from typing import Protocol, TypeVar

from agent.trial import Experiment, Progress
from agent.types import Measurement, Role

T = TypeVar("T")


@dataclass(frozen=True)
class Order:
    """One run that the session wants to be made."""

    trial: int  # that asked for it; 0 for the baseline
    commit: str
    role: Role
    seed: int
    trace: str  # directory of the run's files, relative to the run directory
    attempt: int  # how often the session had been resumed
    scored: Measurement | None = None  # nothing is trained: this run's checkpoint is scored on the test split


class Workers(Protocol):
    """Makes runs, ``size`` of them at the same time."""

    size: int

    def start(self, order: Order, directory: Path, progress: Progress) -> Future[Measurement]:
        """Begin a run; its files come to ``directory`` before the future is done. Returns at once.

        The future raises what ``Experiment.measure`` raises. ``progress`` is called from another thread.
        """
        ...

    def close(self) -> None:
        """End every run now (their futures raise ``Interrupted``), and wait until nothing is left of them."""
        ...


def carry_out(experiment: Experiment, order: Order, directory: Path, progress: Progress) -> Measurement:
    """Make one run here and now. Errors: see ``Experiment.measure``."""
    if order.scored is None:
        return experiment.measure(
            order.commit, order.role, order.seed, directory, order.trace, order.attempt, progress
        )
    value, failure = experiment.score_test(order.commit, directory, order.seed, progress)
    if failure is None:
        return replace(order.scored, role="test", value=value, reason="")
    reason = f"test split could not be scored: {failure.reason}"
    return replace(order.scored, role="test", value=None, status=failure.status, reason=reason)


class LocalWorkers:
    """A thread for each experiment of this machine.

    Args:
        make: builds the experiments, given what tells them to stop at once.
        stop_now: whether the user wants that.
    """

    def __init__(self, make: Callable[[Callable[[], bool]], Sequence[Experiment]], stop_now: Callable[[], bool]):
        self._closing = threading.Event()
        self._running: set[Future[Measurement]] = set()
        self._free: SimpleQueue[Experiment] = SimpleQueue()
        experiments = make(lambda: self._closing.is_set() or stop_now())
        self.size = len(experiments)
        for experiment in experiments:
            self._free.put(experiment)

    def start(self, order: Order, directory: Path, progress: Progress) -> Future[Measurement]:
        experiment = self._free.get_nowait()

        def work() -> Measurement:
            try:
                return carry_out(experiment, order, directory, progress)
            finally:
                self._free.put(experiment)

        future = in_background(work)
        self._running.add(future)
        future.add_done_callback(self._running.discard)
        return future

    def close(self) -> None:
        self._closing.set()
        for future in list(self._running):
            future.exception()
        while not self._free.empty():
            self._free.get_nowait().repo.close()


def in_background(work: Callable[[], T]) -> Future[T]:
    """Do ``work`` in a thread that does not keep the process alive."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future
