"""A node of a Ray cluster: makes the runs of a session from what the session sent, without its repository."""

from __future__ import annotations

import importlib
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import agent
from agent.errors import EnvironmentProblem, Interrupted, UsageError
from agent.repo.repo import Tree
from agent.target import Target
from agent.trial.experiment import Experiment
from agent.trial.mounts import check_mounts
from agent.trial.order import Order
from agent.trial.trusted_target import Data, trusted_target
from agent.trial.workspace import sweep, workspace
from agent.types import Measurement
from agent.workers.gpu_sharing import SharedExperiment
from sandbox import make_sandbox
from sandbox.gpu import gpus
from sandbox.processor import processors
from sandbox.types import Device, Guarantee, Sandbox, SandboxBroken, SandboxUnavailable

if TYPE_CHECKING:
    from agent.workers.runtime import Workplace

PULSE = 1.0  # seconds between messages of a node and the session
MEETING = 5.0  # seconds that a warm process waits for the next one
LOOK = 0.25  # seconds between its checks
ACCELERATOR = "accelerator_type:"  # prefix of the Ray resource that names the type of a node's GPUs

Files = Mapping[str, np.ndarray]  # names and contents, uint8: Ray transfers arrays without a copy


@dataclass(frozen=True)
class Site:
    """What a node needs from the session, the same for every run."""

    version: str
    target: Target
    sandbox: str
    image: str
    promised: frozenset[Guarantee]  # guarantees of the sandbox on the session's machine: no node may have fewer
    device: str  # cpu | cuda
    threads: int  # 0: not set
    owner: str
    cache: Path  # a leading ~ is the home directory of the node's user
    data: tuple[str, str]  # folder in the cache, and hash; "" for a target without prepared data

    @classmethod
    def of(cls, place: Workplace, owner: str) -> Site:
        settings, prepared = place.settings, place.prepared
        cache = Path(settings.cache)
        return cls(
            version=agent.__version__,
            target=replace(place.target, folder=place.target.folder.resolve()),
            sandbox=place.sandbox.name,
            image=settings.image,
            promised=place.sandbox.guarantees,
            device=place.device.kind,
            threads=settings.threads,
            owner=owner,
            cache=cache if cache.parts[:1] == ("~",) else cache.resolve(),
            data=(prepared.directory.name, prepared.hash) if prepared else ("", ""),
        )

    @property
    def needs(self) -> dict[str, int]:
        """Resources that Ray reserves for one run."""
        return {"num_cpus": self.threads or 1, "num_gpus": int(self.device == "cuda")}


@dataclass(frozen=True)
class Delivery:
    """What a node returns: how the run ended, and its files."""

    result: Measurement | Exception
    files: Files


class Exchange:
    """Messages between nodes and the session; a Ray actor on the session's machine."""

    def __init__(self) -> None:
        self._news: dict[int, tuple[str, str, Mapping[str, Any]]] = {}
        self._stop = False
        self._met: set[int] = set()
        self._latest = 0.0  # time of the last arrival
        self._all_met = False

    def report(self, key: int, node: str, phase: str, info: Mapping[str, Any]) -> bool:
        """Called by a node for one run.

        Returns:
            Whether the run must end now.
        """
        self._news[key] = (node, phase, info)
        return self._stop

    def collect(self, stop: bool) -> dict[int, tuple[str, str, Mapping[str, Any]]]:
        """Called by the session.

        Returns:
            The latest report of every run that has reported since the last call.
        """
        self._stop = stop
        news, self._news = self._news, {}
        return news

    def meet(self, key: int, count: int) -> bool:
        """Called by a warm process.

        Returns:
            Whether it may end: all ``count`` processes are warm, or none has arrived for ``MEETING`` seconds.
        """
        if key not in self._met:
            self._met.add(key)
            self._latest = time.monotonic()
        self._all_met |= len(self._met) >= count or time.monotonic() - self._latest > MEETING
        return self._all_met


class _Connection:
    """Reports one run to the session, and receives the request to stop."""

    def __init__(self, exchange: Any, key: int, node: str):
        self._exchange, self._key, self._node = exchange, key, node
        self._news: tuple[str, Mapping[str, Any]] = ("", {})
        self._stop, self._ended = threading.Event(), threading.Event()

    @property
    def stopped(self) -> bool:
        return self._stop.is_set()

    def progress(self, phase: str, info: Mapping[str, Any]) -> None:
        self._news = (phase, dict(info))

    @contextmanager
    def open(self) -> Iterator[None]:
        thread = threading.Thread(target=self._talk, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._ended.set()
            thread.join()

    def _talk(self) -> None:
        ray = importlib.import_module("ray")
        while True:
            try:
                if ray.get(self._exchange.report.remote(self._key, self._node, *self._news)):
                    self._stop.set()
            except ray.exceptions.RayError:  # the session is gone
                self._stop.set()
            if self._ended.wait(PULSE):
                return


def warm_up(site: Site, data: list[Any], exchange: Any, key: int, count: int) -> None:
    """Start a process, import what a run needs and fetch the data, so that no run waits for them.

    The task holds its slot until all ``count`` tasks have one: otherwise one process would serve them all in turn.
    """
    ray = importlib.import_module("ray")
    with suppress(Exception):  # the first run here reports the problem
        _prepare(site, lambda: ray.get(data[0]))
    while not ray.get(exchange.meet.remote(key, count)):
        time.sleep(LOOK)


def on_node(site: Site, order: Order, tree: Tree, data: list[Any], files: Files, exchange: Any, key: int) -> Delivery:
    """Make one run here. ``data`` is a reference, read only if this node lacks the data."""
    ray = importlib.import_module("ray")
    node = f"{socket.gethostname()} (Ray node {ray.get_runtime_context().get_node_id()[:8]})"
    session = _Connection(exchange, key, node)
    with session.open():
        try:
            with workspace(site.owner) as directory:
                write_files(files, directory)
                experiment = experiment_at(site, tree, lambda: ray.get(data[0]), lambda: session.stopped)
                measured = experiment.measure(order, directory, session.progress)
                return Delivery(measured, read_files(directory))
        except Interrupted as error:
            return Delivery(error, {})
        except (EnvironmentProblem, UsageError, SandboxUnavailable) as error:
            return Delivery(EnvironmentProblem(f"{node}: {error}"), {})
        except (SandboxBroken, OSError) as error:
            return Delivery(SandboxBroken(f"{node}: {error}"), {})


def experiment_at(site: Site, tree: Tree, fetch: Callable[[], Files], stop_now: Callable[[], bool]) -> Experiment:
    """The experiment that makes a run of the session on this node.

    Raises:
        EnvironmentProblem: this node has another version, lacks something, or its sandbox has fewer guarantees.
        SandboxUnavailable: the sandbox does not work on this node.
    """
    sandbox, prepared = _prepare(site, fetch)
    return SharedExperiment(lambda _commit: tree, site.target, sandbox, _device(site), site.owner, prepared, stop_now)


def _prepare(site: Site, fetch: Callable[[], Files]) -> tuple[Sandbox, Data | None]:
    """What every run needs on this node. Errors: see ``experiment_at``."""
    if site.version != agent.__version__:
        raise EnvironmentProblem(f"has Overnight {agent.__version__}, the session {site.version}. Install the same.")
    check_mounts(site.target)
    sandbox = make_sandbox(site.sandbox, image=site.image)
    sandbox.check()
    if lacking := site.promised - sandbox.guarantees:
        words = "; ".join(sorted(guarantee.value for guarantee in lacking))
        raise EnvironmentProblem(f"the sandbox {sandbox.name} does not guarantee here: {words}.")
    _sweep(sandbox, site.owner)
    return sandbox, _unpack(site, fetch) if site.data[0] else None


_swept: set[str] = set()


def _sweep(sandbox: Sandbox, owner: str) -> None:
    """Remove what an earlier process of this owner left, once per Ray process."""
    if owner not in _swept:
        sandbox.sweep(owner)
        sweep(owner)
        _swept.add(owner)


def _unpack(site: Site, fetch: Callable[[], Files]) -> Data:
    trusted = trusted_target(site.target)
    try:
        return trusted.unpack(*site.data, site.cache.expanduser() / "data", fetch)
    except trusted.DataError as error:
        raise EnvironmentProblem(str(error)) from None


def _device(site: Site) -> Device:
    """The device that Ray reserved for this task."""
    if site.device == "cpu":
        return Device("cpu", threads=site.threads or 1)
    ray = importlib.import_module("ray")
    here = gpus()
    try:
        (name,) = ray.get_runtime_context().get_accelerator_ids()["GPU"]
        uuid = name if name.startswith("GPU-") else here[int(name)].uuid
    except (ValueError, IndexError):
        raise EnvironmentProblem("nvidia-smi does not list the GPU that Ray reserved for the run.") from None
    (node,) = (n for n in ray.nodes() if n["NodeID"] == ray.get_runtime_context().get_node_id())
    threads = site.threads or max(1, processors() // max(1, len(here)))
    return Device("cuda", uuid, threads, accelerator(node["Resources"]))


def accelerator(resources: Mapping[str, float]) -> str:
    """The type of a node's GPUs, as Ray names it; "" if unknown."""
    names = (name.removeprefix(ACCELERATOR) for name in sorted(resources) if name.startswith(ACCELERATOR))
    return next(names, "")


def read_files(directory: Path, names: set[str] | None = None) -> Files:
    """The regular files of a folder, or those of them in ``names``."""
    return {
        path.name: np.fromfile(path, np.uint8)
        for path in sorted(directory.glob("*"))
        if path.is_file() and (names is None or path.name in names)
    }


def write_files(files: Files, directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        data.tofile(directory / name)
