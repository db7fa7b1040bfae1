"""Workers: they make the runs that a session orders, several at the same time, each on its own device.

A session hands out at most ``size`` orders at once and waits for their futures. It does not know whether a worker is a
thread with a sandbox on this machine (``LocalWorkers``) or a task on a cluster (``agent.workers.ray``).
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from pathlib import Path
from typing import TypeVar

from agent.errors import EnvironmentProblem, Interrupted
from agent.trial.experiment import Experiment
from agent.trial.order import Order
from agent.types import Measurement, Progress
from sandbox.types import SandboxBroken

T = TypeVar("T")


class Workers(ABC):
    """Makes runs, ``size`` of them at the same time."""

    size: int
    types: tuple[str, ...]  # of their devices

    def __init__(self) -> None:
        self._runs: list[Future[Measurement]] = []  # not all are done

    def start(self, order: Order, directory: Path, progress: Progress) -> Future[Measurement]:
        """Start a run and return at once.

        Args:
            order: what to run.
            directory: holds the run's files before the future is done.
            progress: called from another thread.

        Returns:
            A future with the measurement, with ``Interrupted``, or with ``EnvironmentProblem``: the machine failed, not
            the commit.
        """

        def measure() -> Measurement:
            try:
                return self._measure(order, directory, progress)
            except (SandboxBroken, OSError) as error:
                raise EnvironmentProblem(str(error)) from error

        run = in_background(measure)
        self._runs = [*(run for run in self._runs if not run.done()), run]
        return run

    @abstractmethod
    def _measure(self, order: Order, directory: Path, progress: Progress) -> Measurement:
        """Make a run, in a thread of its own. Errors: as ``Experiment.measure``."""

    @abstractmethod
    def close(self) -> None:
        """Stop every run now (their futures raise ``Interrupted``) and wait until all processes are gone."""


class LocalWorkers(Workers):
    """A thread for each run on this machine. A run waits until an experiment on a device of its type is free.

    Args:
        make: builds the experiments, given a function that says whether to stop at once.
        stop_now: whether the user wants to stop at once.
    """

    def __init__(self, make: Callable[[Callable[[], bool]], Sequence[Experiment]], stop_now: Callable[[], bool]):
        super().__init__()
        self._closing = threading.Event()
        self._free = list(make(lambda: self._closing.is_set() or stop_now()))
        self._freed = threading.Condition()
        self.size = len(self._free)
        self.types = tuple(dict.fromkeys(experiment.device.type for experiment in self._free))

    def _measure(self, order: Order, directory: Path, progress: Progress) -> Measurement:
        experiment = self._take(order.on)
        try:
            return experiment.measure(order, directory, progress)
        finally:
            with self._freed:
                self._free.append(experiment)
                self._freed.notify_all()

    def _take(self, device_type: str) -> Experiment:
        with self._freed:
            while not self._closing.is_set():
                for experiment in self._free:
                    if device_type in ("", experiment.device.type):
                        self._free.remove(experiment)
                        return experiment
                self._freed.wait()
        raise Interrupted

    def close(self) -> None:
        self._closing.set()
        with self._freed:
            self._freed.notify_all()
        wait(self._runs)


def in_background(work: Callable[[], T]) -> Future[T]:
    """Call ``work`` in a daemon thread; its result or exception completes the future."""
    future: Future[T] = Future()

    def fulfil() -> None:
        try:
            result = work()
        except BaseException as error:
            future.set_exception(error)
        else:
            future.set_result(result)

    threading.Thread(target=fulfil, daemon=True).start()
    return future
