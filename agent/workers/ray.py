"""Workers on a Ray cluster: each run is a task on some node, with one GPU of its own.

A node gets the commit's tree, and the prepared data where it has not got them; sandbox, clock and scorer are its own.
What it sends back are the measurement and the run's files: the ledger has one writer, the session. Ray is told to
repeat nothing, since the session knows what is to be run again.
"""

from __future__ import annotations

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
from agent.trial.outputs import CHECKPOINT
from agent.types import Measurement, Progress
from agent.workers.local import Order
from agent.workers.ray_node import (
    ACCELERATOR,
    PULSE,
    Delivery,
    Exchange,
    Files,
    Site,
    accelerator,
    on_node,
    read_files,
    warm_up,
    write_files,
)
from sandbox.types import SandboxBroken

if TYPE_CHECKING:
    from agent.workers.runtime import Workplace
    from nanogpt_target.prepare import Prepared

LOOK = 0.25  # seconds between looks of the session at its tasks
GRACE = 20.0  # seconds that a node has to end a run by itself
PATIENCE = 60.0  # seconds without a free node after which that is said
START = 120.0  # seconds that Ray may take to start a process
SETTINGS = bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))  # of HTTP/2: an empty frame, with which either side begins
GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + SETTINGS
ANSWER = 10.0  # seconds that an address has to take a connection
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
    node: str = ""  # once it has reported
    since: float = field(default_factory=time.monotonic)
    missed: bool = False  # whether it was said that no node has begun it


class RayWorkers:
    """As many tasks as the session asks for; those that find no free node wait in Ray's queue.

    Args:
        address: local (a cluster of this process, on the loopback), auto, or host:port.
        size: of the runs beside each other.
        place: what is run, and how.
        owner: label of what is left behind should this process die.
        stop_now: whether the user wants everything to end.

    Raises:
        UsageError, EnvironmentProblem: no such cluster, or none of its nodes has room for a run.
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
            self._site, self._data = ray.put(site), [ray.put(_pack(place.prepared))] if place.prepared else []
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
            run.future.set_exception(error)
        except self._ray.exceptions.RayError as error:
            run.future.set_exception(SandboxBroken(f"Ray took no task: {_first_line(error)}"))
        else:
            self._runs[reference] = run
        return run.future

    def close(self) -> None:
        self._closing.set()
        deadline = time.monotonic() + GRACE
        while (runs := dict(self._runs)) and time.monotonic() < deadline:
            for reference, run in runs.items():
                if not run.node:  # it waits for a node, or has just begun
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
        """The one thread that looks after the tasks: passes news on, and completes futures."""
        pulse = 0.0
        while not self._ended.is_set():
            try:
                if time.monotonic() >= pulse:
                    self._pass_news()
                    pulse = time.monotonic() + PULSE
                done = self._done()
            except self._ray.exceptions.RayError as error:  # the session's own end of the cluster is broken
                for run in self._take(list(self._runs)):
                    run.future.set_exception(EnvironmentProblem(f"the Ray cluster is gone: {_first_line(error)}"))
                self._ended.wait(LOOK)
                continue
            for reference in done:
                self._complete(reference)

    def _done(self) -> list[Any]:
        """Tasks that have ended; waits for a moment if there are none."""
        if waiting := list(self._runs):
            return list(self._ray.wait(waiting, timeout=LOOK)[0])
        self._ended.wait(LOOK)
        return []

    def _take(self, references: list[Any]) -> list[_Run]:
        return [self._runs.pop(reference) for reference in references]

    def _pass_news(self) -> None:
        stop = self._closing.is_set() or self._stop_now()
        news = self._ray.get(self._exchange.collect.remote(stop))
        if news and not self._warm:  # the first runs are under way: let the places that wait for their results warm up
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

    def _complete(self, reference: Any) -> None:
        """Bring the files of a run here, then say how it ended."""
        (run,) = self._take([reference])
        errors = self._ray.exceptions
        try:
            delivery: Delivery = self._ray.get(reference)
            write_files(delivery.files, run.directory)
            result = delivery.result
        except errors.RayTaskError as error:
            result = error.cause if isinstance(error.cause, Exception) else error
            if isinstance(result, (errors.RayError, ImportError)) or "failed to import" in str(result):
                result = EnvironmentProblem(
                    f"a node could not begin a run: {_first_line(result)}. "
                    f"Install Overnight {agent.__version__} on every node, and start Ray from its environment."
                )
        except errors.RayError as error:
            lost = f"{run.node or 'a node'} was lost with its run: {type(error).__name__}, {_first_line(error)}"
            result = Interrupted() if self._closing.is_set() else SandboxBroken(lost)
        except OSError as error:
            result = error
        if isinstance(result, Exception):
            run.future.set_exception(result)
        else:
            run.future.set_result(result)


def _connect(address: str, size: int, site: Site) -> Any:
    """The package ray, connected.

    Raises:
        UsageError: this is no address.
        EnvironmentProblem: it is not installed, or nothing answers at this address.
    """
    host, _, port = address.rpartition(":")
    if address not in ("local", "auto") and not (host and "/" not in host and port.isdecimal()):
        raise UsageError(f"--ray-address {address}: write local, auto or HOST:PORT, as in 10.0.0.1:6379.")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if address == "local" or address.startswith("127."):
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # Ray's switch for servers that listen on the loopback
    try:
        ray = importlib.import_module("ray")
        importlib.import_module("ray.util.scheduling_strategies")
    except ImportError:
        raise EnvironmentProblem(
            "--ray-address needs Ray, which is not installed. Do: pip install 'overnight[ray]'"
        ) from None
    quiet = {"log_to_driver": False, "logging_level": "error"}
    answered = False
    try:
        if address == "local":  # as many runs beside each other as without Ray
            cpus = {"num_cpus": size * site.needs["num_cpus"]}
            ray.init(address=address, include_dashboard=False, **cpus, **quiet)
        else:
            if address != "auto":
                _knock(host, int(port))  # Ray itself would try for minutes
                answered = True
            ray.init(address=address, **quiet)
    except (OSError, ValueError, RuntimeError) as error:
        mend = _START if address == "auto" or not answered else _TOKEN
        raise EnvironmentProblem(
            f"--ray-address {address}: no Ray cluster to work with ({_first_line(error)}). {mend}"
        ) from None
    return ray


def _knock(host: str, port: int) -> None:
    """Raises OSError unless a server for gRPC, which Ray speaks, takes connections at this address."""
    with socket.create_connection((host, port), ANSWER) as there, there.makefile("rb") as said:
        there.sendall(GREETING)
        if os.environ.get("RAY_USE_TLS", "0") == "0" and said.read(len(SETTINGS))[3:4] != SETTINGS[3:4]:
            raise OSError("what listens there is not Ray")


def _check_room(ray: Any, site: Site) -> tuple[str, ...]:
    """The types of device on which a run has room. Raises ``EnvironmentProblem`` if there are none."""
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


def _pack(prepared: Prepared) -> Files:
    from nanogpt_target.prepare import pack

    return pack(prepared)


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
