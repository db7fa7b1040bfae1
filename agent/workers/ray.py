"""Workers on a Ray cluster: each run is a task on some node, with its own GPU.

A node receives the tree of the commit, and the prepared data if it lacks them. Sandbox, clock and scorer run there. The
node returns the measurement and the run's files; only the session writes the ledger. Ray retries no task: the session
decides which runs to repeat.
"""

from __future__ import annotations

import contextlib
import importlib
import itertools
import os
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import agent
from agent.errors import EnvironmentProblem, Interrupted, UsageError
from agent.trial.order import Order
from agent.trial.outputs import CHECKPOINT
from agent.types import Measurement, Progress
from agent.workers.ray_node import (
    ACCELERATOR,
    PULSE,
    Exchange,
    Site,
    accelerator,
    on_node,
    read_files,
    warm_up,
    write_files,
)
from sandbox.packages import install_command

if TYPE_CHECKING:
    from agent.workers.runtime import Workplace

LOOK = 0.25  # seconds between checks of the tasks
GRACE = 20.0  # seconds in which a node should end a run itself
PATIENCE = 60.0  # seconds without a free node until the session reports it
START = 120.0  # longest start of a process by Ray, in seconds
ANSWER = 10.0  # longest wait for a connection to an address, in seconds
_START = (
    "On this machine, do: ray start --head, or ray start --address=HOST:PORT to join one; or use --ray-address local."
)
_TOKEN = "Its servers may ask for a token, as they do where ~/.ray/auth_token exists: then set RAY_AUTH_MODE=token."


@dataclass
class _Run:
    key: int
    future: Future[Measurement]
    directory: Path
    progress: Progress
    node: str = ""  # known after its first report
    since: float = field(default_factory=time.monotonic)
    missed: bool = False  # whether the session has reported that the run waits for a node


class RayWorkers:
    """One task per run; tasks without a free node wait in Ray's queue.

    Args:
        address: local (a cluster of this process, on the loopback), auto, or host:port.
        size: number of runs at the same time.
        place: what is run, and how.
        owner: label of files and processes that a killed session leaves behind.
        stop_now: whether the user wants every run to stop at once.

    Raises:
        UsageError, EnvironmentProblem: there is no such cluster, or none of its nodes has room for a run.
    """

    def __init__(self, address: str, size: int, place: Workplace, owner: str, stop_now: Callable[[], bool]):
        if size < 1:
            raise UsageError(f"--workers {size}: must be at least 1.")
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
            self._site, self._data = (
                ray.put(site),
                [ray.put(read_files(place.prepared.directory))] if place.prepared else [],
            )
            self._task, self._warm_up = remote(on_node), remote(warm_up)
        except BaseException:
            ray.shutdown()
            raise
        self._tree = lru_cache(maxsize=4 * size)(lambda commit: ray.put(place.repo.tree(commit)))
        self._keys = itertools.count()
        self._runs: dict[Any, _Run] = {}  # by reference to what the task returns
        self._warm = False
        self._stop_now, self._closing, self._ended = stop_now, threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def start(self, order: Order, directory: Path, progress: Progress) -> Future[Measurement]:
        run = _Run(next(self._keys), Future(), directory, progress)
        try:
            files = read_files(directory, {item.name for item in CHECKPOINT}) if order.scored else {}
            tree = self._tree(order.commit)
            known = order.on not in ("", "cpu", "cuda")
            task = self._task.options(resources={ACCELERATOR + order.on: 0.001}) if known else self._task
            reference = task.remote(self._site, order, tree, self._data, files, self._exchange, run.key)
        except (EnvironmentProblem, OSError) as error:
            run.future.set_exception(EnvironmentProblem(str(error)))
        except self._ray.exceptions.RayError as error:
            run.future.set_exception(EnvironmentProblem(f"Ray accepted no task: {_first_line(error)}"))
        else:
            self._runs[reference] = run
        return run.future

    def close(self) -> None:
        self._closing.set()
        deadline = time.monotonic() + GRACE
        while (runs := dict(self._runs)) and time.monotonic() < deadline:
            for reference, run in runs.items():
                if not run.node:  # the task waits for a node, or has just started
                    self._ray.cancel(reference, force=True)
            wait([run.future for run in runs.values()], timeout=PULSE)
        for reference in list(self._runs):
            self._ray.cancel(reference, force=True)
        wait([run.future for run in list(self._runs.values())], timeout=GRACE)
        self._ended.set()
        self._thread.join()
        for run in self._runs.values():
            run.future.set_exception(Interrupted())
        self._runs.clear()
        self._ray.shutdown()

    def _follow(self) -> None:
        """The thread that passes reports on and completes futures."""
        pulse = 0.0
        while not self._ended.is_set():
            try:
                if time.monotonic() >= pulse:
                    self._pass_news()
                    pulse = time.monotonic() + PULSE
                done = self._done()
            except self._ray.exceptions.RayError as error:  # the session has lost the cluster
                gone = EnvironmentProblem(f"the Ray cluster is gone: {_first_line(error)}")
                while self._runs:
                    self._runs.popitem()[1].future.set_exception(gone)
                self._ended.wait(LOOK)
                continue
            for reference in done:
                self._complete(reference, self._runs.pop(reference))

    def _done(self) -> list[Any]:
        """Tasks that have ended; waits up to ``LOOK`` seconds for one."""
        if waiting := list(self._runs):
            return list(self._ray.wait(waiting, timeout=LOOK)[0])
        self._ended.wait(LOOK)
        return []

    def _pass_news(self) -> None:
        stop = self._closing.is_set() or self._stop_now()
        news = self._ray.get(self._exchange.collect.remote(stop))
        if news and not self._warm:  # the first runs have started: warm up processes for the other slots
            self._warm = True
            for key in range(cold := self.size - len(self._runs)):
                self._warm_up.remote(self._site, self._data, self._exchange, key, cold)
        for run in list(self._runs.values()):
            if run.key in news:
                run.node, phase, info = news[run.key]
                if phase:
                    run.progress(phase, info)
            elif not (run.node or run.missed) and time.monotonic() - run.since > PATIENCE:
                run.missed = True
                run.progress("note", {"text": "a run waits for a node of the cluster; `ray status` lists what is free"})

    def _complete(self, reference: Any, run: _Run) -> None:
        """Write the files of a run, then complete its future."""
        errors = self._ray.exceptions
        try:
            measured, files = self._ray.get(reference)
            write_files(files, run.directory)
        except errors.RayTaskError as error:
            cause = error.cause if isinstance(error.cause, Exception) else error
            if isinstance(cause, (errors.RayError, ImportError)) or "failed to import" in str(cause):
                cause = EnvironmentProblem(
                    f"a node could not start a run: {_first_line(cause)}. "
                    f"Install Overnight {agent.__version__} on every node, and start Ray from its environment."
                )
            run.future.set_exception(cause)
        except errors.RayError as error:
            lost = f"{run.node or 'a node'} was lost with its run: {type(error).__name__}, {_first_line(error)}"
            run.future.set_exception(Interrupted() if self._closing.is_set() else EnvironmentProblem(lost))
        except OSError as error:
            run.future.set_exception(EnvironmentProblem(str(error)))
        else:
            run.future.set_result(measured)


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
        mend = _START if address == "auto" or not answered else _TOKEN
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
        ray.get(exchange.collect.remote(False), timeout=START)
    except ray.exceptions.RayError as error:
        tokens = os.environ.get("RAY_AUTH_MODE") == "token"  # Ray itself says so for auto, once there is a token
        raise EnvironmentProblem(
            f"--ray-address: Ray on this machine cannot load Overnight {agent.__version__} ({type(error).__name__}). "
            f"Stop it (ray stop), and start it again from the environment of this `overnight`."
            + (" Or it was started without a token: then set RAY_AUTH_MODE=disabled." if tokens else "")
        ) from None


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
