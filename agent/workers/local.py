"""Where runs are made: workers beside each other, each with a device of its own.

A session hands out ``Order``s, never more than ``size`` at once, and collects what comes back. It does not see whether
a worker is a thread with a sandbox on this machine (``LocalWorkers``) or a task on a cluster (``agent.workers.ray``).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, TypeVar

from agent.errors import Interrupted
from agent.trial.experiment import Experiment
from agent.types import Measurement, Progress, Role

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
    on: str = ""  # type of the device that it has to be; "" is any
    scored: Measurement | None = None  # nothing is trained: this run's checkpoint is scored on the test split


class Workers(Protocol):
    """Makes runs, ``size`` of them at the same time."""

    size: int
    types: tuple[str, ...]  # of their devices

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
        return experiment.measure(order.commit, order.role, order.seed, directory, order.trace, order.attempt, progress)
    value, failure = experiment.score_test(order.commit, directory, progress)
    if failure is None:
        return replace(order.scored, role="test", value=value, reason="")
    reason = f"test split could not be scored: {failure.reason}"
    return replace(order.scored, role="test", value=None, status=failure.status, reason=reason)


@dataclass(frozen=True)
class _Job:
    """An order that waits for a device."""

    order: Order
    directory: Path
    progress: Progress
    future: Future[Measurement]


class LocalWorkers:
    """A thread for each experiment of this machine.

    Args:
        make: builds the experiments, given what tells them to stop at once.
        stop_now: whether the user wants that.
    """

    def __init__(self, make: Callable[[Callable[[], bool]], Sequence[Experiment]], stop_now: Callable[[], bool]):
        self._closing = threading.Event()
        self._free = list(make(lambda: self._closing.is_set() or stop_now()))
        self._waiting: list[_Job] = []
        self._running: set[Future[Measurement]] = set()
        self._lock = threading.RLock()
        self.size = len(self._free)
        self.types = tuple(dict.fromkeys(experiment.device.type for experiment in self._free))

    def start(self, order: Order, directory: Path, progress: Progress) -> Future[Measurement]:
        job = _Job(order, directory, progress, Future())
        with self._lock:
            self._waiting.append(job)
            self._dispatch()
        return job.future

    def _dispatch(self) -> None:
        """Give each free device the oldest order that it may carry out."""
        for job in list(self._waiting):
            fitting = (e for e in self._free if job.order.on in ("", e.device.type))
            if experiment := next(fitting, None):
                self._free.remove(experiment)
                self._waiting.remove(job)
                self._running.add(job.future)
                threading.Thread(target=self._work, args=(experiment, job), daemon=True).start()

    def _work(self, experiment: Experiment, job: _Job) -> None:
        fulfil(job.future, lambda: carry_out(experiment, job.order, job.directory, job.progress))
        with self._lock:
            self._running.discard(job.future)
            self._free.append(experiment)
            self._dispatch()

    def close(self) -> None:
        self._closing.set()
        with self._lock:
            waiting, self._waiting = self._waiting, []
            running = list(self._running)
        for job in waiting:
            job.future.set_exception(Interrupted())
        for future in running:
            future.exception()
        with self._lock:
            for experiment in self._free:
                experiment.repo.close()
            self._free.clear()


def fulfil(future: Future[T], work: Callable[[], T]) -> None:
    """Do ``work`` now; its result or exception becomes the future's."""
    try:
        result = work()
    except BaseException as error:
        future.set_exception(error)
    else:
        future.set_result(result)


def in_background(work: Callable[[], T]) -> Future[T]:
    """Do ``work`` in a thread that does not keep the process alive."""
    future: Future[T] = Future()
    threading.Thread(target=fulfil, args=(future, work), daemon=True).start()
    return future
