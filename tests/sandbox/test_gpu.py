"""A job gets the device files of its own GPU, and what it leaves in the GPU's memory is said. Without a GPU: a stand-in
for nvidia-smi that reads its numbers from files."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from sandbox import gpu, make_sandbox
from sandbox.selfcheck.bench import PATIENCE, SMALL, Bench, describe
from sandbox.types import Device, SandboxBroken, SandboxUnavailable


@pytest.fixture
def machine(tmp_path: Path) -> tuple[Path, Path]:
    """Two GPUs as the driver shows them."""
    information, dev = tmp_path / "gpus", tmp_path / "dev"
    dev.mkdir()
    for name in ("nvidiactl", "nvidia-uvm", "nvidia0", "nvidia1", "sda"):
        (dev / name).touch()
    for bus, uuid, minor in (("0000:01:00.0", "GPU-aaa", 0), ("0000:02:00.0", "GPU-bbb", 1)):
        (information / bus).mkdir(parents=True)
        text = f"Model: \t\t NVIDIA\nGPU UUID: \t {uuid}\nDevice Minor: \t {minor}\nBlacklisted:\t No\n"
        (information / bus / "information").write_text(text)
    return information, dev


@pytest.mark.parametrize(("uuid", "own"), [("GPU-aaa", "nvidia0"), ("GPU-bbb", "nvidia1"), ("", "nvidia0")])
def test_a_job_sees_one_gpu(machine: tuple[Path, Path], uuid: str, own: str) -> None:
    names = [p.name for p in gpu.nodes(Device("cuda", uuid), *machine)]
    assert names == ["nvidiactl", "nvidia-uvm", own]


def test_a_job_on_the_cpu_sees_none(machine: tuple[Path, Path]) -> None:
    assert gpu.nodes(Device("cpu"), *machine) == []


def test_a_gpu_that_is_not_there_is_a_broken_machine(machine: tuple[Path, Path]) -> None:
    with pytest.raises(SandboxBroken, match="GPU-aaa, GPU-bbb"):
        gpu.nodes(Device("cuda", "GPU-ccc"), *machine)


@pytest.fixture
def smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose files ``used`` and ``apps`` are what nvidia-smi answers."""
    program = tmp_path / "bin" / "nvidia-smi"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\ncase "$1" in *=memory.used*) cat {tmp_path}/used;; *) cat {tmp_path}/apps;; esac\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    monkeypatch.setattr(gpu, "PATIENCE", 0.5)
    (tmp_path / "apps").write_text("")
    return tmp_path


@pytest.mark.parametrize(
    ("before", "after", "apps", "said"),
    [
        ("4", "4", "", []),
        ("4", "300", "", []),
        ("4", "9000", "", ["left 8996 MB of the GPU's memory in use"]),
        ("4", "9000", "1234", []),
        ("9000", "4", "", []),
    ],
    ids=["free", "slack", "left", "somebody else's", "less"],
)
def test_what_is_left_in_the_memory_is_said(smi: Path, before: str, after: str, apps: str, said: list[str]) -> None:
    (smi / "used").write_text(before + "\n")
    watch = gpu.MemoryWatch(Device("cuda", "GPU-aaa"))
    (smi / "used").write_text(after + "\n")
    (smi / "apps").write_text(apps)
    assert watch.problems() == said


def test_without_nvidia_smi_nothing_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpu.MemoryWatch(Device("cuda", "GPU-aaa")).problems() == []


@pytest.mark.parametrize(
    ("used", "needed", "free"),
    [
        (500, None, True),
        (30_000, None, True),
        (60_000, None, False),
        (30_000, 40.0, True),
        (30_000, 76.0, False),
        (3_000, 76.0, True),
        (3_000, 200.0, True),
        (20_000, 200.0, False),
    ],
)
def test_memory_that_a_trial_may_use_must_be_free(smi: Path, used: int, needed: float | None, free: bool) -> None:
    (smi / "used").write_text(f"{used}, 81920\n")
    (smi / "apps").write_text("1234, /usr/bin/python3, 2000\n77, VLLM::EngineCore, 58000\n")
    if free:
        gpu.check_free(Device("cuda", "GPU-aaa"), needed)
        return
    who = r"python3 \(process 1234, 2000 MiB\), VLLM::EngineCore \(process 77, 58000 MiB\)"
    with pytest.raises(SandboxBroken, match=f"Held by {who}: end what .* vram_gb"):
        gpu.check_free(Device("cuda", "GPU-aaa"), needed)


def test_memory_that_is_given_back_late_is_waited_for(smi: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (smi / "used").write_text("60000, 81920\n")
    monkeypatch.setattr(gpu.time, "sleep", lambda _seconds: (smi / "used").write_text("500, 81920\n"))
    gpu.check_free(Device("cuda", "GPU-aaa"))
    assert (smi / "used").read_text() == "500, 81920\n", "nobody waited"


def test_no_gpu_is_no_matter(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpu.memory(Device("cuda", "GPU-aaa")) is None
    gpu.check_free(Device("cuda", "GPU-aaa"), 80.0)
    gpu.check_free(Device("cpu"), 80.0)


# the limit

GPU = Device("cuda", "GPU-aaa")


@pytest.mark.parametrize(
    ("listed", "used", "exceeded", "peak"),
    [
        ("{pid}, 3000", "9000", True, 3.146),  # its own
        ("{pid}, 1500\n{pid}, 1500", "9000", True, 3.146),
        ("{pid}, 1000\n1, 8000", "9000", False, 1.049),  # the rest is another's
        ("{pid}, [N/A]", "9000", True, 9.433),
        ("", "9000", True, 9.433),  # nothing is listed: all that was not there before
        ("", "1004", False, 1.049),
    ],
    ids=["over", "two contexts", "somebody else's", "not told", "not listed", "within"],
)
def test_a_job_may_hold_its_limit_and_no_more(smi: Path, listed: str, used: str, exceeded: bool, peak: float) -> None:
    (smi / "used").write_text("4\n")
    watch = gpu.MemoryWatch(GPU, limit_gb=2.0)
    with subprocess.Popen(["sleep", "600"]) as child:  # below the process that is followed
        (smi / "apps").write_text(listed.format(pid=child.pid))
        (smi / "used").write_text(used + "\n")
        killed = threading.Event()
        watch.follow(os.getpid(), killed.set)
        assert killed.wait(PATIENCE if exceeded else 2.0) == exceeded
        child.kill()
    (smi / "used").write_text("4\n")
    assert watch.problems() == (["used more than 2 GiB of the GPU's memory"] if exceeded else [])
    assert (watch.exceeded, watch.peak_gb) == (exceeded, peak)


def test_without_a_limit_the_peak_is_seen(smi: Path) -> None:
    (smi / "used").write_text("4\n")
    watch = gpu.MemoryWatch(GPU)
    (smi / "used").write_text("90004\n")
    watch.follow(None, lambda: pytest.fail("killed"))
    for _ in range(int(PATIENCE / 0.05)):
        if watch.peak_gb:
            break
        threading.Event().wait(0.05)
    (smi / "used").write_text("4\n")
    assert watch.problems() == []
    assert watch.peak_gb == pytest.approx(94.372, abs=1e-3)


@pytest.fixture(params=["process", "bwrap"])
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    place = make_sandbox(request.param)
    try:
        place.check()
    except SandboxUnavailable as error:
        pytest.skip(str(error))
    with Bench(place) as found:
        yield found


HOLD = "import time; print('ready', flush=True); time.sleep(600)"


def test_a_job_beyond_its_limit_is_killed(bench: Bench, smi: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "nodes", lambda _device: [])  # this machine has no such GPU
    (smi / "used").write_text("4\n")
    job = bench.job(HOLD, limits=replace(SMALL, vram_gb=2.0), device=GPU)
    running = bench.sandbox.start(job)
    bench.wait_for(running, "ready")
    (smi / "used").write_text("9000\n")
    deadline = time.monotonic() + PATIENCE
    while running.read(timeout=0.2) is not None:
        assert time.monotonic() < deadline, "it was not killed"
    (smi / "used").write_text("4\n")
    outcome = running.finish()
    assert outcome.out_of_memory, describe(outcome)
    assert outcome.problems == ("used more than 2 GiB of the GPU's memory",)
    assert outcome.peak_vram_gb == pytest.approx(9.433, abs=1e-3)
