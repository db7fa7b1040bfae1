"""Sessions on real Ray clusters: several nodes on the loopback of this machine, some of which fail."""

from __future__ import annotations

import importlib.util
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import budgets
import pytest
from bench_target import Bench
from conftest import missing
from ports import free_port
from sessions import check_whole, state_of
from targets import TOML, TRAIN, make_bowl

from agent.errors import EnvironmentProblem, Interrupted
from agent.ledger.events import Lost, Measured
from agent.ledger.journal import read
from agent.rundir.directory import RunDirectory
from agent.settings import Settings
from agent.trial.order import Order
from agent.trial.outputs import CHECKPOINT
from agent.types import Measurement
from agent.workers.local import LocalWorkers
from agent.workers.runtime import Workplace, workplace
from sandbox.types import Device

SLOW = TRAIN.replace("\nnoise =", "import time\n\ntime.sleep(2)\nnoise =")
HELD = SLOW.replace(  # every trial but the baseline trains until the file GO exists
    "time.sleep(2)",
    "import os, pathlib\n\nif RATE != 0.01:\n    pathlib.Path(GO + str(os.getpid())).touch()\n"
    "while RATE != 0.01 and not pathlib.Path(GO).exists():\n    time.sleep(0.1)",
)
ENDLESS = ("\nimport ", "\nimport time\n\ntime.sleep(600)\nimport ")  # an edit
FAST = {"proposer": "cma-es", "sandbox": "process", "device": "cpu", "threads": 1, "policy": "greedy", "seed": 3}
ONE_CPU = {"num_cpus": 1, "num_gpus": 0, "object_store_memory": 80 << 20, "include_dashboard": False}

if importlib.util.find_spec("ray") is None:

    @pytest.fixture(autouse=True)
    def _ray() -> None:
        missing("no Ray")


def wait_for(true: Callable[[], object], what: str, seconds: float = budgets.CLUSTER_SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"did not happen within {seconds:.0f} s: {what}"
        time.sleep(0.2)


@dataclass
class Nodes:
    """A cluster on this machine. Each node has its own home directory."""

    cluster: Any
    homes: list[Path]
    workers: list[Any]  # all nodes except the first one, to which the session connects

    @property
    def address(self) -> str:
        return str(self.cluster.address)

    def lose(self) -> None:
        """Kill the last node."""
        self.cluster.remove_node(self.workers.pop(), allow_graceful=False)


@contextmanager
def running(homes: list[Path], monkeypatch: pytest.MonkeyPatch, **more: int) -> Iterator[Nodes]:
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # Ray's switch for the loopback
    from ray.cluster_utils import Cluster

    cluster = Cluster()
    try:
        added = []
        for home in homes:
            home.mkdir()
            with monkeypatch.context() as there:
                there.setenv("HOME", str(home))
                added.append(cluster.add_node(**{**ONE_CPU, **more}))
        cluster.wait_for_nodes()
        yield Nodes(cluster, homes, added[1:])
    finally:
        cluster.shutdown()


@pytest.fixture
def nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Nodes]:
    with running([tmp_path / f"home-{k}" for k in range(3)], monkeypatch) as nodes:
        yield nodes


def command(*words: str | Path, mark: str = "") -> subprocess.Popen[str]:
    """Start `overnight` from this environment."""
    return subprocess.Popen(
        [sys.executable, "-m", "agent.cli", *map(str, words)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env={**os.environ, "OVERNIGHT_TEST_MARK": mark},
    )


def begin(target: Path, runs: Path, mark: str = "", **settings: object) -> subprocess.Popen[str]:
    given = {**FAST, "target": target, "runs": runs, "tag": "night", **settings}
    words = [word for name, value in given.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    return command("run", *words, mark=mark)


def end(process: subprocess.Popen[str], status: int = 0) -> str:
    out = process.communicate(timeout=budgets.SESSION_SECONDS)[0]
    assert process.returncode == status, out[-6000:]
    return out


def measured(directory: RunDirectory) -> int:
    return sum(isinstance(event, Measured) for event in read(directory.ledger)) if directory.ledger.exists() else 0


def training(folder: Path) -> int:
    """Number of ``HELD`` trials that train for some seconds, so that their nodes have reported them."""
    return sum(time.time() - file.stat().st_mtime > 4 for file in folder.glob("go*"))


def values(directory: RunDirectory) -> dict[tuple[str, int], float | None]:
    runs = state_of(directory).runs
    return {(run.commit, run.seed): run.value for measurements in runs.values() for run in measurements}


def test_lost_node_costs_no_trial(nodes: Nodes, tmp_path: Path) -> None:
    go = tmp_path / "go"
    target = make_bowl(tmp_path / "target", HELD.replace("GO", repr(str(go))))
    directory = RunDirectory(tmp_path / "runs", "night")
    process = begin(
        target, tmp_path / "runs", trials=8, calibrate=3, workers=3, budget="5steps", ray_address=nodes.address
    )
    wait_for(lambda: training(tmp_path) == 3 or process.poll() is not None, "three trials", budgets.SESSION_SECONDS)
    nodes.lose()
    go.touch()  # until now, every trial is running
    end(process)
    check_whole(directory, target, 8)
    lost = [event.reason for event in read(directory.ledger) if isinstance(event, Lost)]
    assert lost, "the lost node had no run"
    assert all("Ray node" in reason and "was lost with its run" in reason for reason in lost)
    assert state_of(directory).ended == "all 8 trials done"


def test_values_equal_those_without_ray(nodes: Nodes, tmp_path: Path) -> None:
    target = make_bowl(tmp_path / "target", TRAIN.replace("+ noise:", ":"))
    for where, address in (("here", ""), ("there", nodes.address)):
        end(begin(target, tmp_path / where, tag=where, trials=5, calibrate=2, ray_address=address))
    here, there = (RunDirectory(tmp_path / where, where) for where in ("here", "there"))
    check_whole(there, target, 5)
    assert list(values(here).values()) == list(values(there).values())
    for run in [event.measurement for event in read(there.ledger) if isinstance(event, Measured)]:
        assert "val_bpb" in (there.path / run.trace / "train.log").read_text(), "the run's files stayed on the node"
    for name, more in (("replay-here", ()), ("replay-there", ("--ray-address", nodes.address, "--workers", "2"))):
        words = ("--seeds", "2", "--name", name, "--runs", tmp_path / "here", "--sandbox", "process", *more)
        end(command("replay", "here", *words))
    replays = [RunDirectory(tmp_path / "here", f"replay-{where}") for where in ("here", "there")]
    assert values(replays[0]) == values(replays[1])


def test_killed_driver_resumes(nodes: Nodes, tmp_path: Path) -> None:
    target, directory = make_bowl(tmp_path / "target", SLOW), RunDirectory(tmp_path / "runs", "night")
    process = begin(
        target, tmp_path / "runs", trials=5, calibrate=2, workers=2, budget="5steps", ray_address=nodes.address
    )
    wait_for(lambda: measured(directory) >= 3 or process.poll() is not None, "three runs", budgets.SESSION_SECONDS)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    end(command("resume", "night", "--runs", tmp_path / "runs"))
    check_whole(directory, target, 5)
    assert state_of(directory).resumed == 1


def test_stopped_session_leaves_no_process(tmp_path: Path) -> None:
    mark = secrets.token_hex(8)
    slow = TRAIN.replace("\nnoise =", "import time\n\ntime.sleep(60)\nnoise =")
    toml = TOML.replace('"train.py"]\nscore', f'"train.py", "{mark}"]\nscore').replace("seconds = 20", "seconds = 90")
    target = make_bowl(tmp_path / "target", slow, toml)
    assert mark in (target / "target.toml").read_text()

    def trains() -> bool:
        return any(mark in words and "train.py" in words for words in processes("cmdline"))

    process = begin(target, tmp_path / "runs", mark, workers=2, trials=2, budget="5steps", ray_address="local")
    wait_for(lambda: trains() or process.poll() is not None, "the trainer")
    assert sum(mark in words for words in processes("environ")) > 3, "Ray's processes do not have the mark"
    end(command("stop", "night", "--now", "--runs", tmp_path / "runs"))
    process.communicate(timeout=budgets.SESSION_SECONDS)
    wait_for(lambda: not trains(), "the end of the trainer")
    wait_for(lambda: not any(mark in words for words in processes("environ")), "the end of Ray")
    events = read(RunDirectory(tmp_path / "runs", "night").ledger)
    lost = [event.reason for event in events if isinstance(event, Lost)]
    assert lost
    assert set(lost) == {"interrupted"}


def by_process(what: str) -> dict[str, str]:
    """The file ``what`` of each process, by process id."""
    found = {}
    for place in Path("/proc").glob(f"[0-9]*/{what}"):
        try:
            found[place.parent.name] = place.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
    return found


def processes(what: str) -> list[str]:
    return list(by_process(what).values())


def test_worker_processes_start_during_the_baseline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from agent.workers.ray import RayWorkers

    target, home = make_bowl(tmp_path / "target", SLOW), tmp_path / "home"
    place = workplace(Settings(target=str(target), device="cpu", threads=1, sandbox="process"), silent_words)

    def tasks(waiting: bool) -> set[str]:
        """Processes of this cluster that wait for a run, or that execute one."""
        ours = {pid for pid, words in by_process("environ").items() if f"HOME={home} " in words}
        named = {pid: words for pid, words in by_process("cmdline").items() if words.startswith("ray::")}
        return {pid for pid, words in named.items() if words.startswith("ray::IDLE") is waiting} & ours

    with running([home], monkeypatch, num_cpus=4) as node:
        workers = RayWorkers(node.address, 4, place, str(tmp_path), lambda: False)

        def run(k: int) -> Future[Measurement]:
            order = Order(0, place.repo.head(), "calibrate", k, f"run-{k}", 0)
            return workers.start(order, tmp_path / order.trace, silent)

        try:
            assert run(0).result(timeout=budgets.CLUSTER_SECONDS).status == "ok"
            wait_for(lambda: len(tasks(waiting=True)) >= 4, "a process for each worker")
            before, used = tasks(waiting=True), set()
            futures = [run(k) for k in range(1, 5)]
            while not all(future.done() for future in futures):
                used |= tasks(waiting=False)
                time.sleep(0.05)
            assert [future.result().status for future in futures] == ["ok"] * 4
            # Ray may replace one slow process; without early starts, three of four are new.
            assert len(used & before) >= 3, "the runs had to wait for processes"
        finally:
            workers.close()


def test_cluster_with_token_names_the_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target, token = make_bowl(tmp_path / "target"), tmp_path / "home/.ray/auth_token"
    token.parent.mkdir(parents=True)
    token.write_text(secrets.token_hex(32))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    port = free_port()
    words = f"start --head --block --node-ip-address 127.0.0.1 --port {port} --num-cpus 1 --num-gpus 0"
    words += " --include-dashboard false --object-store-memory 80000000 --disable-usage-stats"
    head = subprocess.Popen(
        [sys.executable, "-m", "ray.scripts.scripts", *words.split()],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    try:
        address = f"127.0.0.1:{port}"
        wait_for(lambda: head.poll() is not None or listens(port), "Ray")
        out = end(begin(target, tmp_path / "runs", ray_address=address), EnvironmentProblem.exit_status)
        assert "RAY_AUTH_MODE=token" in out
        monkeypatch.setenv("RAY_AUTH_MODE", "token")
        end(begin(target, tmp_path / "runs", ray_address=address, trials=1, calibrate=1))
    finally:
        head.terminate()
        head.wait(budgets.CLUSTER_SECONDS)


def listens(port: int) -> bool:
    with socket.socket() as there:
        return there.connect_ex(("127.0.0.1", port)) == 0


def test_token_without_need_names_the_setting(nodes: Nodes, tmp_path: Path) -> None:
    target = make_bowl(tmp_path / "target")
    with pytest.MonkeyPatch.context() as session:
        session.setenv("RAY_AUTH_MODE", "token")
        session.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
        process = begin(target, tmp_path / "runs", ray_address=nodes.address)
    assert "RAY_AUTH_MODE=disabled" in end(process, EnvironmentProblem.exit_status)


def silent(_phase: str, _info: object) -> None:
    """Ignore progress."""


def silent_words(_words: str) -> None:
    """Ignore messages."""


def test_data_and_checkpoints_are_sent_once(nodes: Nodes, tmp_path: Path) -> None:
    from agent.workers.ray import RayWorkers

    bench = Bench(tmp_path / "bench", changes={"steps = 12": "steps = 2", "tokens = 65536": "steps = 2"})
    settings = Settings(target=str(bench.folder), device="cpu", threads=1, sandbox="process", cache="~/cache")
    place = Workplace(
        settings=settings, target=bench.target, repo=bench.repo, sandbox=bench.sandbox,
        device=Device("cpu", threads=1), prepared=bench.prepared,
    )  # fmt: skip
    workers = RayWorkers(nodes.address, 3, place, str(tmp_path), lambda: False)
    head, phases = bench.repo.head(), []

    def run(k: int, **more: Any) -> Order:
        return Order(0, head, "calibrate", more.pop("seed", k), f"run-{k}", 0, **more)

    def manifests() -> list[int]:
        return [path.stat().st_mtime_ns for home in nodes.homes for path in home.glob("cache/data/*/manifest.json")]

    try:
        orders = [run(k) for k in range(3)]
        begun = [workers.start(o, tmp_path / o.trace, lambda phase, _info: phases.append(phase)) for o in orders]
        first = [future.result(timeout=budgets.CLUSTER_SECONDS) for future in begun]
        assert [m.status for m in first] == ["ok"] * 3, first[0]
        assert len(once := manifests()) == 3, "every node has the data"
        assert {"startup", "scoring"} & set(phases), "no progress was reported"
        scored = [run(k, seed=m.seed, scored=m) for k, m in enumerate(first)]
        tests = [workers.start(o, tmp_path / o.trace, silent) for o in scored]
        assert all(future.result(timeout=budgets.CLUSTER_SECONDS).value is not None for future in tests)
        assert manifests() == once, "the data was sent again"
        for k in range(3):
            names = {path.name for path in (tmp_path / f"run-{k}").iterdir()}
            assert {"train.log", "result.json", CHECKPOINT[0].name} <= names
        endless = Order(0, bench.commit(ENDLESS), "calibrate", 7, "run-7", 0)
        phases.clear()
        cut = workers.start(endless, tmp_path / "run-7", lambda phase, _info: phases.append(phase))
        wait_for(lambda: phases or cut.done(), "the run to interrupt")
    finally:
        workers.close()
    assert isinstance(cut.exception(timeout=budgets.CLUSTER_SECONDS), Interrupted)
    here = LocalWorkers(lambda _stop: [local(bench)], lambda: False)
    try:
        value = here.start(run(0), tmp_path / "here", silent).result(timeout=budgets.CLUSTER_SECONDS).value
    finally:
        here.close()
    assert value == first[0].value, "the value differs from the one without Ray"


def local(bench: Bench) -> Any:
    from agent.repo.repo import Repo
    from agent.trial.experiment import Experiment

    device = Device("cpu", threads=1)
    return Experiment(Repo(bench.folder).tree, bench.target, bench.sandbox, device, "here", bench.prepared)


def test_unusable_cluster_is_an_environment_problem(nodes: Nodes, tmp_path: Path) -> None:
    target = make_bowl(tmp_path / "target")
    out = end(begin(target, tmp_path / "runs", ray_address="127.0.0.1:1"), EnvironmentProblem.exit_status)
    assert "--ray-address 127.0.0.1:1" in out
    assert "ray start --head" in out
    with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as other:
        threading.Thread(target=other.handle_request, daemon=True).start()
        address = f"127.0.0.1:{other.server_port}"
        out = end(begin(target, tmp_path / "runs", ray_address=address), EnvironmentProblem.exit_status)
    assert f"--ray-address {address}" in out
    assert not (tmp_path / "runs").exists(), "a run directory without a session"
    out = end(
        begin(target, tmp_path / "runs", tag="big", threads=7, ray_address=nodes.address),
        EnvironmentProblem.exit_status,
    )
    assert "7 CPU" in out
