"""Workers: they make the runs that a session orders, several at the same time, each on its own device.

A session hands out at most ``size`` orders at once and waits for their futures. It does not know whether a worker is a
thread with a sandbox on this machine (``LocalWorkers``) or a task on a cluster (``agent.workers.ray``).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from agent.errors import Interrupted
from agent.trial.experiment import Experiment
from agent.trial.order import Order
from agent.types import Measurement, Progress

T = TypeVar("T")


class Workers(Protocol):
    """Makes runs, ``size`` of them at the same time."""

    size: int
    types: tuple[str, ...]  # of their devices

    def start(self, order: Order, directory: Path, progress: Progress) -> Future[Measurement]:
        """Start a run and return at once.

        Args:
            order: what to run.
            directory: holds the run's files before the future is done.
            progress: called from another thread.

        Returns:
            A future with the measurement, or with an exception that ``Experiment.measure`` raises.
        """
        ...

    def close(self) -> None:
        """Stop every run now (their futures raise ``Interrupted``) and wait until all processes are gone."""
        ...


@dataclass(frozen=True)
class _Job:
    """An order that waits for a device."""

    order: Order
    directory: Path
    progress: Progress
    future: Future[Measurement]


class LocalWorkers:
    """A thread for each experiment on this machine.

    Args:
        make: builds the experiments, given a function that says whether to stop at once.
        stop_now: whether the user wants to stop at once.
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
        """Start the oldest jobs for which a device of the required type is free."""
        for job in list(self._waiting):
            fitting = (e for e in self._free if job.order.on in ("", e.device.type))
            if experiment := next(fitting, None):
                self._free.remove(experiment)
                self._waiting.remove(job)
                self._running.add(job.future)
                threading.Thread(target=self._work, args=(experiment, job), daemon=True).start()

    def _work(self, experiment: Experiment, job: _Job) -> None:
        fulfil(job.future, lambda: experiment.measure(job.order, job.directory, job.progress))
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


def fulfil(future: Future[T], work: Callable[[], T]) -> None:
    """Call ``work``; its result or exception completes the future."""
    try:
        result = work()
    except BaseException as error:
        future.set_exception(error)
    else:
        future.set_result(result)


def in_background(work: Callable[[], T]) -> Future[T]:
    """Call ``work`` in a daemon thread."""
    future: Future[T] = Future()
    threading.Thread(target=fulfil, args=(future, work), daemon=True).start()
    return future
