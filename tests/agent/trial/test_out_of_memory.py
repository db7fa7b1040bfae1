"""The kernel's out-of-memory killer in the control group of a trial: the run ends as `oom`, other processes live on."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from openai_server import OpenAIServer
from sessions import check_whole, resume, start, state_of
from targets import TOML, TRAIN, make_bowl

from agent.patch.apply import unified_diff
from sandbox import cgroups, make_sandbox
from sandbox.layout import label
from sandbox.types import SandboxUnavailable

EAT = """held = []
while True:
    held.append(b"x" * 4_000_000)


def value():"""
# the kernel kills the child, the largest process of the group; its parent continues and prints a value
EAT_IN_A_CHILD = """if os.fork() == 0:
    held = []
    while True:
        held.append(b"x" * 4_000_000)
os.wait()


def value():"""


@pytest.fixture(params=["process", "bwrap"])
def sandbox(request: pytest.FixtureRequest) -> str:
    if "memory" not in cgroups.controllers():
        pytest.skip("memory control groups need root or a delegated subtree")
    try:
        make_sandbox(request.param).check()
    except SandboxUnavailable as error:
        pytest.skip(str(error))
    return str(request.param)


@pytest.fixture
def bystander() -> Iterator[subprocess.Popen[bytes]]:
    """A process of the user outside the trial's control group, with as much memory as the trial may use."""
    program = "held = b'x' * 128_000_000; print(flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
        process.kill()


def kills() -> int:
    """Processes killed by the out-of-memory killer since the machine started."""
    return int(Path("/proc/vmstat").read_text().partition("\noom_kill ")[2].split()[0])


def reply(old: str, new: str) -> str:
    diff = unified_diff(TRAIN, TRAIN.replace(old, new), "train.py")
    return f"Category: other\nSubject: An edit\nRationale: Why not.\n\n```diff\n{diff}```\n"


@pytest.mark.parametrize("greedy_code", [EAT, EAT_IN_A_CHILD], ids=["itself", "a child"])
def test_oom_killer_ends_only_the_trial(
    tmp_path: Path, sandbox: str, bystander: subprocess.Popen[bytes], greedy_code: str
) -> None:
    target = make_bowl(tmp_path / "target", toml=TOML.replace("memory_gb = 1", "memory_gb = 0.125"))
    before = kills()
    replies = [reply("def value():", greedy_code), reply("RATE = 0.01", "RATE = 0.1")]
    with OpenAIServer(replies) as server:
        directory = start(
            target, tmp_path / "runs", proposer="code", sandbox=sandbox, policy="greedy", trials=2, repairs=0,
            llm_base_url=server.base_url,
        )  # fmt: skip
    assert kills() > before, "the kernel killed nothing"
    eater, good = state_of(directory).records
    (run,) = eater.runs
    assert (run.status, run.value) == ("oom", None)
    assert "0.125 GB" in run.reason
    assert (eater.decision, good.status, good.decision) == ("revert", "ok", "keep")
    assert bystander.poll() is None
    check_whole(directory, target, 2)
    left = f"overnight-{label(str(directory.path.resolve()))}-*"
    assert not [p for parent in cgroups._parents().values() for p in parent.glob(left)]
    check_whole(resume(tmp_path / "runs", proposer="random", trials=3), target, 3)
