"""The Docker sandbox with the project's image on a real engine: the contract that every sandbox keeps, and its own."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sandbox.docker import DockerSandbox
from sandbox.layout import label
from sandbox.selfcheck import escapes as breaking
from sandbox.selfcheck.bench import BEAT, SMALL, Bench, Check
from sandbox.selfcheck.cases import CHECKS, run_check
from sandbox.types import Device, Guarantee, SandboxBroken, SandboxUnavailable


@pytest.fixture(scope="module")
def sandbox(docker_image: str) -> DockerSandbox:
    place = DockerSandbox(docker_image)
    place.check()
    return place


@pytest.fixture
def bench(sandbox: DockerSandbox) -> Iterator[Bench]:
    with Bench(sandbox) as place:
        yield place


def docker(*arguments: str) -> str:
    return subprocess.run(["docker", *arguments], check=True, capture_output=True, text=True, timeout=60).stdout.strip()


def test_it_promises_everything(sandbox: DockerSandbox) -> None:
    assert sandbox.guarantees == set(Guarantee)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name.replace(" ", "-"))
def test_the_sandbox_keeps_its_promise(sandbox: DockerSandbox, check: Check) -> None:
    result = run_check(sandbox, check)
    assert result.ok, result.detail
    assert not result.skipped


TRAIN = """
import json, os, torch
from safetensors.torch import save_file
torch.manual_seed(0)
layer = torch.nn.Linear(64, 64)
optimizer = torch.optim.AdamW(layer.parameters())
x = torch.randn(256, 64)
for _ in range(20):
    loss = (layer(x) - x).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
save_file(layer.state_dict(), os.environ["OUT"] + "/model.safetensors")
print(json.dumps(loss.item()))
"""


def test_a_model_trains_and_its_checkpoint_comes_back(bench: Bench) -> None:
    from safetensors.numpy import load_file

    from sandbox.types import Collect

    ran = bench.run(TRAIN, limits=replace(SMALL, memory_gb=2.0), collect=(Collect("model.safetensors", 1 << 20),))
    assert ran.outcome.exit_code == 0, ran.outcome.log_tail
    assert 0 < ran.told < 2
    assert load_file(ran.outcome.collected["model.safetensors"])["weight"].shape == (64, 64)


def test_system_calls_outside_the_list_are_refused(bench: Bench) -> None:
    assert bench.told(breaking.FORBIDDEN) == [[], "2"]


def test_process_1_cannot_be_ended_read_or_deceived(bench: Bench) -> None:
    program = """
import json, os, signal
reached = []
for number in (signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    os.kill(1, number)
for path in ("/proc/1/fd", "/proc/1/mem", "/proc/1/environ", "/proc/1/root"):
    try:
        os.listdir(path) if path.endswith(("fd", "root")) else open(path, "rb").read(1)
        reached.append(path)
    except OSError:
        pass
reached += [n for n in os.listdir("/proc/self/fd") if n not in "0123"]
os.write(1, b"E" + (2).to_bytes(4, "big") + b"{}" + chr(10).encode())
print(json.dumps(reached))
"""
    ran = bench.run(program)
    assert ran.told == []
    assert ran.outcome.exit_code == 0


def test_a_job_that_lets_process_1_starve_has_run_out_of_memory(bench: Bench) -> None:
    program = """
import os
with open("/proc/self/oom_score_adj", "w") as file:
    file.write("0")  # as process 1 has, which is larger than this one
print("ready", flush=True)
os.execvp("dd", ["dd", "if=/dev/zero", "of=/tmp/all", "bs=64k"])
"""
    outcome = bench.run(program, limits=replace(SMALL, memory_gb=0.1)).outcome
    assert outcome.out_of_memory
    assert outcome.exit_code != 0


def container_of(owner: str) -> dict[str, Any]:
    identifiers = docker("ps", "-q", "--filter", f"label=overnight.owner={label(owner)}").split()
    assert len(identifiers) == 1
    found: dict[str, Any] = json.loads(docker("inspect", identifiers[0]))[0]
    return found


def test_the_container_is_made_as_it_is_promised(bench: Bench) -> None:
    job = bench.job(BEAT)
    running = bench.sandbox.start(job)
    try:
        bench.wait_for(running, "ready")
        facts = container_of(bench.owner)
    finally:
        running.kill()
        running.finish()
    host = facts["HostConfig"]
    assert (host["NetworkMode"], host["IpcMode"], host["ReadonlyRootfs"]) == ("none", "private", True)
    assert (host["CapDrop"], host["Privileged"], host["PidMode"]) == (["ALL"], False, "")
    assert host["Memory"] == host["MemorySwap"] == SMALL.memory_gb * 2**30
    assert host["PidsLimit"] == SMALL.processes + 1
    assert host["LogConfig"]["Type"] == "none"
    assert facts["Config"]["User"].split(":")[0] not in ("", "0", "root")
    assert [line.partition("=")[0] for line in host["SecurityOpt"]] == ["no-new-privileges:true", "seccomp"]
    written = {m["Destination"] for m in facts["Mounts"] if m["RW"]}
    assert written == {"/overnight/shared", "/overnight/out"}


def test_nothing_is_left_on_the_engine(bench: Bench) -> None:
    before = docker("volume", "ls", "-q")
    bench.run("print(1)")
    assert docker("ps", "-aq", "--filter", f"label=overnight.owner={label(bench.owner)}") == ""
    assert docker("volume", "ls", "-q") == before


def test_the_sweep_removes_a_container_that_never_started(bench: Bench, docker_image: str) -> None:
    marks = [f"--label=overnight.owner={label(bench.owner)}", f"--label=overnight.host={os.uname().nodename}"]
    name = docker("create", *marks, "--label=overnight.process=1-1", "--network=none", docker_image)
    assert bench.sandbox.sweep("somebody else") == 0
    assert docker("ps", "-aq", "--no-trunc", "--filter", f"id={name}") == name
    assert bench.sandbox.sweep(bench.owner) == 1
    assert docker("ps", "-aq", "--filter", f"id={name}") == ""


def test_a_container_that_somebody_removes_is_a_broken_sandbox(bench: Bench) -> None:
    running = bench.sandbox.start(bench.job(BEAT))
    bench.wait_for(running, "ready")
    docker("rm", "-f", "-v", container_of(bench.owner)["Id"])
    with pytest.raises(SandboxBroken):
        running.finish()


def test_a_killed_session_leaves_no_container(bench: Bench) -> None:
    with bench.session("hang") as session:
        assert session.stdout is not None
        assert session.stdout.readline() == "ready\n"
        session.kill()
    for _ in range(60):
        if not docker("ps", "-aq", "--filter", f"label=overnight.owner={label(bench.owner)}"):
            return
        time.sleep(1)
    pytest.fail("the container outlived its session")


def test_a_job_that_cannot_start_leaves_nothing(bench: Bench) -> None:
    with pytest.raises(SandboxBroken, match="cannot write"):
        bench.sandbox.start(replace(bench.job(BEAT), log=bench.folder / "none" / "log"))
    assert docker("ps", "-aq", "--filter", f"label=overnight.owner={label(bench.owner)}") == ""


def test_a_missing_image_says_how_to_build_it() -> None:
    with pytest.raises(SandboxUnavailable, match="docker build -t overnight-none:latest"):
        DockerSandbox("overnight-none:latest").check()


def test_without_an_engine_nothing_is_promised(monkeypatch: pytest.MonkeyPatch, docker_image: str) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere.sock")
    place = DockerSandbox(docker_image)
    assert place.guarantees == frozenset()
    assert place.sweep("anybody") == 0
    with pytest.raises(SandboxUnavailable, match="Start it"):
        place.check()


@pytest.mark.skipif(Path("/dev/nvidiactl").exists(), reason="this machine has a GPU")
def test_a_gpu_that_is_not_there_is_a_broken_machine_and_no_failed_trial(bench: Bench) -> None:
    with pytest.raises(SandboxBroken, match="NVIDIA container toolkit"):
        bench.sandbox.start(bench.job("print(1)", device=Device("cuda", "GPU-1")))
    assert docker("ps", "-aq", "--filter", f"label=overnight.owner={label(bench.owner)}") == ""
