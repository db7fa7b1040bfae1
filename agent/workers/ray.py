"""Workers on a Ray cluster: each run is a task on some node, with its own GPU.

A node receives the tree of the commit, and the prepared data if it lacks them. Sandbox, clock and scorer run there. The
node returns the measurement and the run's files; only the session writes the ledger. Ray retries no task: the session
decides which runs to repeat.
"""

from __future__ import annotations

import contextlib
import importlib
import itertools
import math
import os
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import wait
from functools import lru_cache
from pathlib import Path
from typing import Any

import agent
from agent.errors import EnvironmentProblem, Interrupted, UsageError
from agent.repo.repo import Repo
from agent.trial.order import Order
from agent.trial.outputs import CHECKPOINT
from agent.types import Measurement, Progress
from agent.workers.local import Workers
from agent.workers.ray_node import (
    ACCELERATOR,
    PULSE,
    Exchange,
    Report,
    Site,
    accelerator,
    on_node,
    read_files,
    warm_up,
    write_files,
)
from agent.workers.runtime import Workplace
from sandbox.packages import install_command

GRACE = 20.0  # seconds in which a node should end a run itself
PATIENCE = 60.0  # seconds without a free node until the session reports it
START = 120.0  # longest start of a process by Ray, in seconds
ANSWER = 10.0  # longest wait for a connection to an address, in seconds
_START = (
    "On this machine, do: ray start --head, or ray start --address=HOST:PORT to join one; or use --ray-address local."
)
_TOKEN = "Its servers may ask for a token, as they do where ~/.ray/auth_token exists: then set RAY_AUTH_MODE=token."


class RayWorkers(Workers):
    """A task for each run, and a thread that waits for it; tasks without a free node wait in Ray's queue.

    Args:
        address: local (a cluster of this process, on the loopback), auto, or host:port.
        size: number of runs at the same time.
        place: what is run, and how.
        owner: see ``find_workers``, also for ``stop_now``.

    Raises:
        UsageError, EnvironmentProblem: there is no such cluster, or none of its nodes has room for a run.
    """

    def __init__(self, address: str, size: int, place: Workplace, owner: str, stop_now: Callable[[], bool]):
        if size < 1:
            raise UsageError(f"--workers {size}: must be at least 1.")
        super().__init__()
        self.size = size
        site = Site.of(place, owner)
        self._ray = ray = _connect(address, size, site)
        try:
            self.types = _check_room(ray, site)
            here = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
                ray.get_runtime_context().get_node_id(), soft=False
            )
            self._exchange = ray.remote(num_cpus=0, scheduling_strategy=here)(Exchange).remote()
            _check_answer(ray, self._exchange)
            remote = ray.remote(max_retries=0, max_calls=0, scheduling_strategy="SPREAD", **site.needs)
            self._site = ray.put(site)
            self._data = [ray.put(read_files(place.prepared.directory))] if place.prepared else []
            self._task, self._warm_up = remote(on_node), remote(warm_up)
        except BaseException:
            ray.shutdown()
            raise
        repo, self._lock = Repo(place.target.folder), threading.Lock()
        self._tree = lru_cache(maxsize=4 * size)(lambda commit: ray.put(repo.tree(commit)))
        self._keys = itertools.count()
        self._warm = False
        self._stop_now, self._end = stop_now, math.inf  # moment at which a node should have ended its run

    def close(self) -> None:
        self._end = time.monotonic() + GRACE
        wait(self._runs)
        self._ray.shutdown()

    def _measure(self, order: Order, directory: Path, progress: Progress) -> Measurement:
        """Pass on the reports of a task until it ends, then write its files."""
        errors, key, node, patience = self._ray.exceptions, next(self._keys), "", time.monotonic() + PATIENCE
        reference = self._submit(order, directory, key)
        measured: Measurement
        while True:
            try:
                if self._ray.wait([reference], timeout=PULSE)[0]:  # a get that times out would restart the transfer
                    measured, files = self._ray.get(reference)
                    write_files(files, directory)
                    return measured
            except errors.RayTaskError as error:
                raise _task_problem(error, errors.RayError) from None
            except errors.RayError as error:
                lost = f"{node or 'a node'} was lost with its run: {type(error).__name__}, {_first_line(error)}"
                raise EnvironmentProblem(lost) if self._end == math.inf else Interrupted from None
            if report := self._report(key):
                node, phase, info = report
                self._warm_up_others()
                if phase:
                    progress(phase, info)
            elif not node and time.monotonic() > patience:
                patience = math.inf
                progress("note", {"text": "a run waits for a node of the cluster; `ray status` lists what is free"})
            if time.monotonic() > self._end + GRACE:
                raise Interrupted
            if time.monotonic() > self._end or (not node and self._end < math.inf):  # it may wait for a node
                with contextlib.suppress(errors.RayError):  # the next look finds out
                    self._ray.cancel(reference, force=True)

    def _submit(self, order: Order, directory: Path, key: int) -> Any:
        """Start the task of a run; return a reference to its result."""
        files = read_files(directory, {item.name for item in CHECKPOINT}) if order.scored else {}
        known = order.on not in ("", "cpu", "cuda")
        task = self._task.options(resources={ACCELERATOR + order.on: 0.001}) if known else self._task
        try:
            with self._lock:  # a Repo is not thread-safe
                tree = self._tree(order.commit)
            return task.remote(self._site, order, tree, self._data, files, self._exchange, key)
        except self._ray.exceptions.RayError as error:
            raise EnvironmentProblem(f"Ray accepted no task: {_first_line(error)}") from None

    def _report(self, key: int) -> Report | None:
        """The latest report of a run, unless it was read before. Its next report is answered with whether to stop."""
        stop = self._end < math.inf or self._stop_now()
        try:
            report: Report | None = self._ray.get(self._exchange.collect.remote(key, stop))
        except self._ray.exceptions.RayError as error:
            raise EnvironmentProblem(f"the Ray cluster is gone: {_first_line(error)}") from None
        return report

    def _warm_up_others(self) -> None:
        """Once the first runs have started, warm up processes for the other slots."""
        with self._lock:
            cold = 0 if self._warm else self.size - sum(not run.done() for run in self._runs)
            self._warm = True
        with contextlib.suppress(self._ray.exceptions.RayError):  # the next report finds out
            for process in range(cold):
                self._warm_up.remote(self._site, self._data, self._exchange, process, cold)


def _connect(address: str, size: int, site: Site) -> Any:
    """The package ray, connected to the cluster at ``address``.

    Raises:
        UsageError: ``address`` is not an address.
        EnvironmentProblem: Ray is not installed, or no cluster answers at ``address``.
    """
    host, _, port = address.rpartition(":")
    if address not in ("local", "auto") and not (host and "/" not in host and port.isdecimal()):
        raise UsageError(f"--ray-address {address}: write local, auto or HOST:PORT, as in 10.0.0.1:6379.")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if address == "local" or address.startswith("127."):
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # makes Ray's servers listen on the loopback
    try:
        ray = importlib.import_module("ray")
        importlib.import_module("ray.util.scheduling_strategies")
    except ImportError:
        raise EnvironmentProblem(
            f"--ray-address needs Ray, which is not installed. Run: {install_command('overnight[ray]')}"
        ) from None
    quiet = {"log_to_driver": False, "logging_level": "error"}
    answered = False
    try:
        if address == "local":  # as many runs at the same time as without Ray
            cpus = {"num_cpus": size * site.needs["num_cpus"]}
            ray.init(address=address, include_dashboard=False, **cpus, **quiet)
        else:
            if address != "auto":
                _check_server(host, int(port))  # Ray itself would retry for minutes
                answered = True
            ray.init(address=address, **quiet)
    except (OSError, ValueError, RuntimeError) as error:
        mend = _TOKEN if answered else _START
        raise EnvironmentProblem(
            f"--ray-address {address}: no Ray cluster to work with ({_first_line(error)}). {mend}"
        ) from None
    return ray


def _check_server(host: str, port: int) -> None:
    """Raise ``OSError`` unless a server at this address sends the first byte, as Ray's servers do."""
    with socket.create_connection((host, port), ANSWER) as connection:
        encrypted = os.environ.get("RAY_USE_TLS", "0") != "0"  # then the client sends the first byte
        with contextlib.suppress(TimeoutError):
            if encrypted or connection.recv(1):
                return
    raise OSError("what listens there is not Ray")


def _check_room(ray: Any, site: Site) -> tuple[str, ...]:
    """The types of device that have room for a run; ``EnvironmentProblem`` if there are none."""
    needs = {"CPU": site.needs["num_cpus"], "GPU": site.needs["num_gpus"]}
    alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    fitting = [node for node in alive if all(node.get(kind, 0) >= amount for kind, amount in needs.items())]
    if not fitting:
        what = " and ".join(f"{amount} {kind}" for kind, amount in needs.items() if amount)
        raise EnvironmentProblem(
            f"--ray-address: a run needs {what} on one node, and none of the {len(alive)} has that. Start a node that "
            f"has (ray start --address=…), or change --threads and --device."
        )
    if site.device == "cpu":
        return ("cpu",)
    return tuple(dict.fromkeys(accelerator(node) or site.device for node in fitting))


def _check_answer(ray: Any, exchange: Any) -> None:
    try:
        ray.get(exchange.collect.remote(-1, False), timeout=START)
    except ray.exceptions.RayError as error:
        tokens = os.environ.get("RAY_AUTH_MODE") == "token"  # Ray itself says so for auto, once there is a token
        raise EnvironmentProblem(
            f"--ray-address: Ray on this machine cannot load Overnight {agent.__version__} ({type(error).__name__}). "
            f"Stop it (ray stop), and start it again from the environment of this `overnight`."
            + (" Or it was started without a token: then set RAY_AUTH_MODE=disabled." if tokens else "")
        ) from None


def _task_problem(error: Any, ray_error: type[Exception]) -> Exception:
    """The exception that ended a task without a result."""
    cause: Exception = error.cause if isinstance(error.cause, Exception) else error
    if not isinstance(cause, (ray_error, ImportError)) and "failed to import" not in str(cause):
        return cause
    return EnvironmentProblem(
        f"a node could not start a run: {_first_line(cause)}. "
        f"Install Overnight {agent.__version__} on every node, and start Ray from its environment."
    )


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
