"""A job sees its own GPU, and its GPU memory is limited and reported.

A stand-in for nvidia-smi reads its numbers from files.
"""

from __future__ import annotations

import os
import subprocess
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from gpu_tools import gpu_tool

from sandbox import gpu
from sandbox.selfcheck.bench import PATIENCE, SMALL, Bench, describe
from sandbox.types import Device, SandboxBroken


@pytest.fixture
def machine(tmp_path: Path) -> tuple[Path, Path]:
    """Two GPUs as the driver lists them: its information files and /dev."""
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
def test_job_sees_one_gpu(machine: tuple[Path, Path], uuid: str, own: str) -> None:
    names = [p.name for p in gpu.nodes(Device("cuda", uuid), *machine)]
    assert names == ["nvidiactl", "nvidia-uvm", own]


def test_cpu_job_sees_no_gpu(machine: tuple[Path, Path]) -> None:
    assert gpu.nodes(Device("cpu"), *machine) == []


def test_missing_gpu_is_a_broken_sandbox(machine: tuple[Path, Path]) -> None:
    with pytest.raises(SandboxBroken, match="GPU-aaa, GPU-bbb"):
        gpu.nodes(Device("cuda", "GPU-ccc"), *machine)


@pytest.fixture
def smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose files ``used`` and ``apps`` hold the output of nvidia-smi."""
    script = f'case "$1" in *=memory.used*) echo "$(cat {tmp_path}/used), 81920";; *) cat {tmp_path}/apps;; esac'
    gpu_tool(tmp_path, monkeypatch, "nvidia-smi", script)
    (tmp_path / "apps").write_text("")
    return tmp_path


@pytest.mark.parametrize(
    ("before", "after", "apps", "problems"),
    [
        ("4", "4", "", []),
        ("4", "300", "", []),
        ("4", "9000", "", ["left 8996 MB of the GPU's memory in use"]),
        ("4", "9000", "1234", []),
        ("9000", "4", "", []),
    ],
    ids=["free", "slack", "left", "other process", "less"],
)
def test_memory_left_allocated_is_reported(smi: Path, before: str, after: str, apps: str, problems: list[str]) -> None:
    (smi / "used").write_text(before + "\n")
    watch = gpu.MemoryWatch(Device("cuda", "GPU-aaa"))
    (smi / "used").write_text(after + "\n")
    (smi / "apps").write_text(apps)
    assert watch.problems() == problems


def test_without_nvidia_smi_nothing_is_reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
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
def test_job_needs_free_memory(smi: Path, used: int, needed: float | None, free: bool) -> None:
    (smi / "used").write_text(f"{used}\n")
    (smi / "apps").write_text("1234, 2000, /usr/bin/python3\n77, 58000, VLLM::EngineCore\n")
    if free:
        gpu.check_free(Device("cuda", "GPU-aaa"), needed)
        return
    who = r"python3 \(process 1234, 2000 MiB\), VLLM::EngineCore \(process 77, 58000 MiB\)"
    with pytest.raises(SandboxBroken, match=f"Held by {who}: .* vram_gb"):
        gpu.check_free(Device("cuda", "GPU-aaa"), needed)


def test_check_waits_for_memory_freed_late(smi: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (smi / "used").write_text("60000\n")
    monkeypatch.setattr(gpu, "PATIENCE", PATIENCE)
    monkeypatch.setattr(gpu.time, "sleep", lambda _seconds: (smi / "used").write_text("500\n"))
    gpu.check_free(Device("cuda", "GPU-aaa"))
    assert (smi / "used").read_text() == "500\n", "did not wait"


def test_without_gpu_memory_is_not_checked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpu.memory(Device("cuda", "GPU-aaa")) is None
    gpu.check_free(Device("cuda", "GPU-aaa"), 80.0)
    gpu.check_free(Device("cpu"), 80.0)


GPU = Device("cuda", "GPU-aaa")


def wait_for_sample(watch: gpu.MemoryWatch) -> None:
    """Wait until the watch has a sample."""
    deadline = time.monotonic() + PATIENCE
    while watch.peak_gb is None:
        assert time.monotonic() < deadline, "no sample"
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("listed", "used", "exceeded", "peak"),
    [
        ("{pid}, 3000, python3", "9000", True, 3.146),  # its own
        ("{pid}, 1500\n{pid}, 1500", "9000", True, 3.146),
        ("{pid}, 1000\n1, 8000", "9000", False, 1.049),  # the rest belongs to another process
        ("{pid}, [N/A]", "9000", True, 9.433),
        ("", "9000", True, 9.433),  # no process listed: all memory allocated since
        ("", "1004", False, 1.049),
    ],
    ids=["over", "two contexts", "other process", "not reported", "not listed", "within"],
)
def test_job_over_its_limit_is_killed(smi: Path, listed: str, used: str, exceeded: bool, peak: float) -> None:
    (smi / "used").write_text("4\n")
    watch = gpu.MemoryWatch(GPU, limit_gb=2.0)
    with subprocess.Popen(["sleep", "600"]) as child:  # a descendant of the followed process
        (smi / "apps").write_text(listed.format(pid=child.pid))
        (smi / "used").write_text(used + "\n")
        killed = threading.Event()
        watch.follow(os.getpid(), killed.set)
        wait_for_sample(watch)
        if exceeded:
            assert killed.wait(PATIENCE)
        child.kill()
    (smi / "used").write_text("4\n")
    assert watch.problems() == (["used more than 2 GiB of the GPU's memory"] if exceeded else [])
    assert (watch.exceeded, watch.peak_gb) == (exceeded, peak)


@pytest.mark.parametrize("name", [b"\xff", "a\n\u00b2, 1, b".encode(), b"a\n1, 5000, b"])
def test_name_of_a_process_changes_no_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: bytes) -> None:
    script = (
        f'case "$1" in *=memory.used*) echo "79000, 81920";; *process_name*) cat {tmp_path}/named;; '
        f"*) cat {tmp_path}/apps;; esac"
    )
    gpu_tool(tmp_path, monkeypatch, "nvidia-smi", script)
    row = f"{os.getpid()}, 9000"
    (tmp_path / "apps").write_text(row)
    (tmp_path / "named").write_bytes(row.encode() + b", " + name)
    watch, killed = gpu.MemoryWatch(GPU, limit_gb=2.0), threading.Event()
    watch.follow(os.getpid(), killed.set)
    assert killed.wait(PATIENCE)
    assert watch.problems() == ["used more than 2 GiB of the GPU's memory"]
    with pytest.raises(SandboxBroken, match=f"process {os.getpid()}, 9000 MiB"):
        gpu.check_free(GPU, 40.0)


def test_peak_is_measured_without_a_limit(smi: Path) -> None:
    (smi / "used").write_text("4\n")
    watch = gpu.MemoryWatch(GPU)
    (smi / "used").write_text("90004\n")
    watch.follow(None, lambda: pytest.fail("killed"))
    wait_for_sample(watch)
    (smi / "used").write_text("4\n")
    assert watch.problems() == []
    assert watch.peak_gb == pytest.approx(94.372, abs=1e-3)


HOLD = "import time; print('ready', flush=True); time.sleep(600)"


def test_sandboxed_job_over_limit_is_out_of_memory(bench: Bench, smi: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "nodes", lambda _device: [])  # this machine does not have the GPU
    (smi / "used").write_text("4\n")
    job = bench.job(HOLD, limits=replace(SMALL, vram_gb=2.0), device=GPU)
    running = bench.start(job)
    (smi / "used").write_text("9000\n")
    deadline = time.monotonic() + PATIENCE
    while running.read(timeout=0.2) is not None:
        assert time.monotonic() < deadline, "not killed"
    (smi / "used").write_text("4\n")
    outcome = running.finish()
    assert outcome.out_of_memory, describe(outcome)
    assert outcome.problems == ("used more than 2 GiB of the GPU's memory",)
    assert outcome.peak_vram_gb == pytest.approx(9.433, abs=1e-3)
