"""The Docker sandbox with the project's image on a real engine: the contract suite, and what only Docker has."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import budgets
import pytest
from sandbox_interface import FORBIDDEN, INTERFACE, session

from sandbox.docker import DockerSandbox
from sandbox.layout import label
from sandbox.selfcheck.bench import SMALL, Bench
from sandbox.selfcheck.cases import CHECKS, Check, run_check
from sandbox.selfcheck.escapes import BEAT
from sandbox.types import Collect, Device, Guarantee, SandboxBroken, SandboxUnavailable


@pytest.fixture(scope="module")
def sandbox(docker_image: str) -> DockerSandbox:
    sandbox = DockerSandbox(docker_image)
    sandbox.check()
    return sandbox


@pytest.fixture
def bench(sandbox: DockerSandbox) -> Iterator[Bench]:
    with Bench(sandbox) as bench:
        yield bench


def docker(*arguments: str) -> str:
    words = ["docker", *arguments]
    done = subprocess.run(words, check=True, capture_output=True, text=True, timeout=budgets.COMMAND_SECONDS)
    return done.stdout.strip()


def test_declares_every_guarantee(sandbox: DockerSandbox) -> None:
    assert sandbox.guarantees == set(Guarantee)


@pytest.mark.parametrize("check", [*INTERFACE, *CHECKS], ids=lambda check: check.name.replace(" ", "-"))
def test_sandbox_passes_check(sandbox: DockerSandbox, check: Check) -> None:
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


def test_model_trains_and_checkpoint_is_collected(bench: Bench) -> None:
    from safetensors.numpy import load_file

    ran = bench.run(TRAIN, limits=replace(SMALL, memory_gb=2.0), collect=(Collect("model.safetensors", 1 << 20),))
    assert ran.outcome.exit_code == 0, ran.outcome.log_tail
    assert 0 < ran.answer < 2
    assert load_file(ran.outcome.collected["model.safetensors"])["weight"].shape == (64, 64)


def test_unlisted_system_calls_are_denied(bench: Bench) -> None:
    assert bench.answer(FORBIDDEN) == [[], "2"]


def test_process_1_is_protected_from_the_job(bench: Bench) -> None:
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
    assert ran.answer == []
    assert ran.outcome.exit_code == 0


def test_starved_process_1_is_out_of_memory(bench: Bench) -> None:
    program = """
import os
with open("/proc/self/oom_score_adj", "w") as file:
    file.write("0")  # as for process 1, which is larger than this process
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


def test_container_has_the_declared_configuration(bench: Bench) -> None:
    job = bench.job(BEAT)
    running = bench.start(job)
    try:
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


def test_ended_job_leaves_nothing_on_engine(bench: Bench) -> None:
    before = docker("volume", "ls", "-q")
    bench.run("print(1)")
    assert docker("ps", "-aq", "--filter", f"label=overnight.owner={label(bench.owner)}") == ""
    assert docker("volume", "ls", "-q") == before


def test_sweep_removes_container_that_never_started(bench: Bench, docker_image: str) -> None:
    marks = [f"--label=overnight.owner={label(bench.owner)}", f"--label=overnight.host={os.uname().nodename}"]
    name = docker("create", *marks, "--label=overnight.process=1-1", "--network=none", docker_image)
    assert bench.sandbox.sweep("other") == 0
    assert docker("ps", "-aq", "--no-trunc", "--filter", f"id={name}") == name
    assert bench.sandbox.sweep(bench.owner) == 1
    assert docker("ps", "-aq", "--filter", f"id={name}") == ""


def test_container_removed_outside_is_broken_sandbox(bench: Bench) -> None:
    running = bench.start(bench.job(BEAT))
    docker("rm", "-f", "-v", container_of(bench.owner)["Id"])
    with pytest.raises(SandboxBroken):
        running.finish()


def test_killed_session_leaves_no_container(bench: Bench) -> None:
    with session(bench, "hang") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.kill()
    for _ in range(budgets.PROGRAM_SECONDS):
        if not docker("ps", "-aq", "--filter", f"label=overnight.owner={label(bench.owner)}"):
            return
        time.sleep(1)
    pytest.fail("the container outlived its session")


def test_job_that_cannot_start_leaves_nothing(bench: Bench) -> None:
    with pytest.raises(SandboxBroken, match="cannot write"):
        bench.sandbox.start(replace(bench.job(BEAT), log=bench.root / "none" / "log"))
    assert docker("ps", "-aq", "--filter", f"label=overnight.owner={label(bench.owner)}") == ""


def test_missing_image_says_how_to_build_it() -> None:
    with pytest.raises(SandboxUnavailable, match="docker build -t overnight-none:latest"):
        DockerSandbox("overnight-none:latest").check()


def test_without_engine_no_guarantee_is_declared(monkeypatch: pytest.MonkeyPatch, docker_image: str) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere.sock")
    sandbox = DockerSandbox(docker_image)
    assert sandbox.guarantees == frozenset()
    assert sandbox.sweep("other") == 0
    with pytest.raises(SandboxUnavailable, match="systemctl start docker"):
        sandbox.check()


@pytest.mark.skipif(Path("/dev/nvidiactl").exists(), reason="this machine has a GPU")
def test_missing_gpu_is_a_broken_sandbox(bench: Bench) -> None:
    with pytest.raises(SandboxBroken, match="NVIDIA container toolkit"):
        bench.sandbox.start(bench.job("print(1)", device=Device("cuda", "GPU-1")))
    assert docker("ps", "-aq", "--filter", f"label=overnight.owner={label(bench.owner)}") == ""
