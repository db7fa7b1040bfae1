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
from typing import Any

import numpy as np

import agent
from agent.errors import EnvironmentProblem, UsageError
from agent.repo.repo import Tree
from agent.settings import Settings
from agent.target import Target
from agent.trial.experiment import Experiment
from agent.trial.mounts import check_mounts
from agent.trial.order import Order
from agent.trial.trusted_target import Data, trusted_target
from agent.trial.workspace import workspace
from agent.types import Measurement, Progress
from agent.workers.gpu_sharing import SharedExperiment
from agent.workers.runtime import Workplace
from sandbox import make_sandbox
from sandbox.gpu import gpus
from sandbox.processor import processors
from sandbox.types import Device, Guarantee, Sandbox, SandboxBroken, SandboxUnavailable

PULSE = 1.0  # seconds between messages of a node and the session
MEETING = 5.0  # seconds that a warm process waits for the next one
LOOK = 0.25  # seconds between its checks
ACCELERATOR = "accelerator_type:"  # prefix of the Ray resource that names the type of a node's GPUs

_swept: set[str] = set()  # owners; what their earlier processes left was removed
Report = tuple[str, str, Mapping[str, Any]]  # name of the node, phase of the run ("" at first), and its figures
Files = Mapping[str, np.ndarray]  # names and contents, uint8: Ray transfers arrays without a copy


@dataclass(frozen=True)
class Site:
    """What a node needs from the session, the same for every run."""

    version: str
    settings: Settings  # a leading ~ of ``cache`` is the home directory of the node's user
    target: Target
    sandbox: str
    promised: frozenset[Guarantee]  # guarantees of the sandbox on the session's machine: no node may have fewer
    device: str  # cpu | cuda
    owner: str
    data: tuple[str, str]  # folder in the cache, and hash; "" for a target without prepared data

    @classmethod
    def of(cls, place: Workplace, owner: str) -> Site:
        prepared, cache = place.prepared, place.settings.cache
        if Path(cache).parts[:1] != ("~",):
            cache = str(Path(cache).resolve())
        # only what a node needs: others, such as addresses, may hold passwords
        settings = Settings(image=place.settings.image, threads=place.settings.threads, cache=cache)
        return cls(
            version=agent.__version__,
            settings=settings,
            target=replace(place.target, folder=place.target.folder.resolve()),
            sandbox=place.sandbox.name,
            promised=place.sandbox.guarantees,
            device=place.device.kind,
            owner=owner,
            data=(prepared.directory.name, prepared.hash) if prepared else ("", ""),
        )

    @property
    def needs(self) -> dict[str, int]:
        """Resources that Ray reserves for one run."""
        return {"num_cpus": self.settings.threads or 1, "num_gpus": int(self.device == "cuda")}


class Exchange:
    """Messages between nodes and the session; a Ray actor on the session's machine."""

    def __init__(self) -> None:
        self._latest: dict[int, Report] = {}
        self._stop = False
        self._warm: set[int] = set()
        self._last_arrival = 0.0
        self._all_warm = False

    def report(self, key: int, node: str, phase: str, info: Mapping[str, Any]) -> bool:
        """Called by a node for one run. Returns whether the run must end now."""
        self._latest[key] = (node, phase, info)
        return self._stop

    def collect(self, key: int, stop: bool) -> Report | None:
        """Called by the session for one run. Returns its latest report; None without one since the last call."""
        self._stop = stop
        return self._latest.pop(key, None)

    def all_warm(self, process: int, count: int) -> bool:
        """Called by a warm process. Whether all ``count`` are warm, or none has arrived for ``MEETING`` seconds."""
        if process not in self._warm:
            self._warm.add(process)
            self._last_arrival = time.monotonic()
        self._all_warm |= len(self._warm) >= count or time.monotonic() - self._last_arrival > MEETING
        return self._all_warm


@contextmanager
def _connected(exchange: Any, key: int, node: str) -> Iterator[tuple[Progress, Callable[[], bool]]]:
    """Report one run to the session every ``PULSE`` seconds.

    Yields:
        A function that receives the progress of the run, and one that says whether the run must end now.
    """
    ray = importlib.import_module("ray")
    news: tuple[str, Mapping[str, Any]] = ("", {})
    stop, ended = threading.Event(), threading.Event()

    def progress(phase: str, info: Mapping[str, Any]) -> None:
        nonlocal news
        news = (phase, dict(info))

    def talk() -> None:
        while not ended.is_set():
            try:
                if ray.get(exchange.report.remote(key, node, *news)):
                    stop.set()
            except ray.exceptions.RayError:  # the session is gone
                stop.set()
            ended.wait(PULSE)

    thread = threading.Thread(target=talk, daemon=True)
    thread.start()
    try:
        yield progress, stop.is_set
    finally:
        ended.set()
        thread.join()


def warm_up(site: Site, data: list[Any], exchange: Any, process: int, count: int) -> None:
    """Start a process, import what a run needs and fetch the data, so that no run waits for them.

    The task holds its slot until all ``count`` have one: otherwise one process would serve all these tasks in turn.
    """
    ray = importlib.import_module("ray")
    with suppress(Exception):  # the first run here reports the problem
        _prepare(site, lambda: ray.get(data[0]))
    while not ray.get(exchange.all_warm.remote(process, count)):
        time.sleep(LOOK)


def on_node(
    site: Site, order: Order, tree: Tree, data: list[Any], files: Files, exchange: Any, key: int
) -> tuple[Measurement, Files]:
    """Make one run here; return its files, too. ``data`` holds a reference, read only if this node lacks the data.

    Raises:
        EnvironmentProblem: this node failed, not the commit.
        Interrupted: the session wants the run to end.
    """
    ray = importlib.import_module("ray")
    node = f"{socket.gethostname()} (Ray node {ray.get_runtime_context().get_node_id()[:8]})"
    try:
        with _connected(exchange, key, node) as (progress, stop_now), workspace(site.owner) as directory:
            write_files(files, directory)
            experiment = experiment_at(site, tree, lambda: ray.get(data[0]), stop_now)
            return experiment.measure(order, directory, progress), read_files(directory)
    except (EnvironmentProblem, UsageError, SandboxUnavailable, SandboxBroken, OSError) as error:
        raise EnvironmentProblem(f"{node}: {error}") from None


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
    sandbox = make_sandbox(site.sandbox, image=site.settings.image)
    sandbox.check()
    if lacking := site.promised - sandbox.guarantees:
        words = "; ".join(sorted(guarantee.value for guarantee in lacking))
        raise EnvironmentProblem(f"the sandbox {sandbox.name} does not guarantee here: {words}.")
    if site.owner not in _swept:
        sandbox.sweep(site.owner)
        _swept.add(site.owner)
    if not site.data[0]:
        return sandbox, None
    trusted = trusted_target(site.target)
    try:
        return sandbox, trusted.unpack(*site.data, Path(site.settings.cache).expanduser() / "data", fetch)
    except trusted.DataError as error:
        raise EnvironmentProblem(str(error)) from None


def _device(site: Site) -> Device:
    """The device that Ray reserved for this task."""
    if site.device == "cpu":
        return Device("cpu", threads=site.settings.threads or 1)
    ray = importlib.import_module("ray")
    here = gpus()
    try:
        (name,) = ray.get_runtime_context().get_accelerator_ids()["GPU"]
        uuid = name if name.startswith("GPU-") else here[int(name)].uuid
    except (ValueError, IndexError):
        raise EnvironmentProblem("nvidia-smi does not list the GPU that Ray reserved for the run.") from None
    (node,) = (n for n in ray.nodes() if n["NodeID"] == ray.get_runtime_context().get_node_id())
    threads = site.settings.threads or max(1, processors() // max(1, len(here)))
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
