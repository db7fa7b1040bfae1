"""The GPU of a job: its device files, the job's GPU memory, and whether that memory is free afterwards.

Covers: a job sees only its own GPU; a job over its limit of GPU memory is killed; memory that stays allocated is
reported. Does not cover: no control group limits GPU memory, so the host samples nvidia-smi or amd-smi. Between two
samples a job can exceed its limit. The GPU of an Apple computer shares the main memory.
"""

from __future__ import annotations

import platform
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sandbox import amd
from sandbox.supervisor import descendants
from sandbox.tools import output_of
from sandbox.types import Device, SandboxBroken

SAMPLE_SECONDS = 0.5  # between two samples; nvidia-smi itself takes some tenths of a second
SLACK_GB = 0.5  # units of 2**30 bytes that the driver itself allocates and frees
PATIENCE = 10.0  # seconds for the driver to free memory
MIB_PER_GB = 1024.0
USABLE = 0.9  # share of a GPU; a larger vram_gb was set for a larger GPU
_SHARED = ("nvidiactl", "nvidia-uvm", "nvidia-uvm-tools", "nvidia-caps")


def nodes(device: Device, information: Path = Path("/proc/driver/nvidia/gpus"), dev: Path = Path("/dev")) -> list[Path]:
    """The device files for a job on this NVIDIA GPU: the driver's and the GPU's own.

    Raises:
        SandboxBroken: this machine does not have the GPU.
    """
    if device.kind != "cuda":
        return []
    minors: dict[str, str] = {}
    for file in sorted(information.glob("*/information")):
        facts = dict(line.split(":", 1) for line in file.read_text().splitlines() if ":" in line)
        minors[facts.get("GPU UUID", "").strip()] = facts.get("Device Minor", "").strip()
    if device.uuid and device.uuid not in minors:
        raise SandboxBroken(f"GPU {device.uuid} is not on this machine; found {', '.join(sorted(minors)) or 'none'}")
    own = [minors[device.uuid]] if device.uuid else list(minors.values())[:1]
    return [dev / name for name in (*_SHARED, *(f"nvidia{minor}" for minor in own)) if (dev / name).exists()]


def gpus() -> list[Device]:
    """NVIDIA's GPUs of this machine, in the driver's order; empty without a driver."""
    lines = output_of("nvidia-smi", "--query-gpu=uuid,name", "--format=csv,noheader").splitlines()
    listed = (line.partition(",") for line in lines if line.startswith("GPU-"))
    return [Device("cuda", uuid.strip(), model=model.strip()) for uuid, _, model in listed]


def devices() -> list[Device]:
    """The GPUs of this machine: NVIDIA's, then AMD's."""
    return [*gpus(), *amd.devices()]


def has_apple_gpu() -> bool:
    """Whether this machine is a Mac with Apple silicon."""
    return sys.platform == "darwin" and platform.machine() == "arm64"


@dataclass(frozen=True)
class Memory:
    """Memory of one GPU over all processes, in units of 2**30 bytes."""

    used_gb: float
    total_gb: float

    @property
    def free_gb(self) -> float:
        return self.total_gb - self.used_gb


def memory(device: Device) -> Memory | None:
    """The memory of a GPU; None without a GPU or without its driver's tool."""
    if device.kind == "rocm":
        found = amd.memory_mb(device)
    else:
        try:
            used, total = _query(device, "gpu=memory.used,memory.total").split(",")
            found = float(used), float(total)
        except ValueError:
            found = None
    return None if found is None else Memory(found[0] / MIB_PER_GB, found[1] / MIB_PER_GB)


def held_gb(device: Device, root: int | None = None) -> float | None:
    """The GPU memory in units of 2**30 bytes that the process ``root`` and its descendants hold.

    Where the driver's tool lists none of them, or without ``root``: the memory in use. None without a GPU.
    """
    if root and (listed := _listed_gb(device, root)) is not None:
        return listed
    return None if (now := memory(device)) is None else now.used_gb


def check_free(device: Device, needed_gb: float | None = None) -> None:
    """Check that enough GPU memory is free for a job, waiting up to ``PATIENCE`` seconds.

    ``needed_gb``: memory that the job may use, in units of 2**30 bytes; by default half of the GPU.

    Raises:
        SandboxBroken: other processes hold the memory; the message names them.
    """
    deadline = time.monotonic() + PATIENCE
    while (now := memory(device)) is not None:
        needed = min(needed_gb if needed_gb is not None else now.total_gb / 2, USABLE * now.total_gb)
        if now.free_gb >= needed - SLACK_GB:
            return
        if time.monotonic() > deadline:
            who = [f"{name} (process {pid}, {held or 0:.0f} MiB)" for pid, name, held in _processes(device, names=True)]
            raise SandboxBroken(
                f"{now.free_gb:.1f} of the GPU's {now.total_gb:.1f} GB are free, and a trial may use {needed:.1f}. "
                f"{'Held by ' + ', '.join(who) if who else 'no process is listed that holds the rest'}: "
                f"end these processes, or lower vram_gb in target.toml"
            )
        time.sleep(0.2)


class MemoryWatch:
    """Samples the GPU memory of a job before, during and after it. Does nothing without a GPU or its driver's tool.

    The job's memory is what the tool lists for its processes. Where it lists none of them (inside a container), all
    memory allocated since the job started counts as the job's.
    """

    def __init__(self, device: Device, limit_gb: float | None = None) -> None:
        """Measure the memory in use before the job starts. ``limit_gb``: the job's limit in units of 2**30 bytes."""
        self._device, self._limit = device, limit_gb
        self._before = held_gb(device)
        self._peak = 0.0  # in units of 2**30 bytes
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        self.exceeded = False

    @property
    def peak_gb(self) -> float | None:
        """The largest sample in units of 10**9 bytes; None without samples."""
        return round(self._peak * 2**30 / 1e9, 3) if self._peak else None

    def follow(self, root: int | None, kill: Callable[[], None]) -> None:
        """Start to sample below ``root``, if it is known; call ``kill`` once if the job exceeds its limit."""
        if self._before is not None:
            self._thread = threading.Thread(target=self._sample, args=(root, kill), daemon=True)
            self._thread.start()

    def _sample(self, root: int | None, kill: Callable[[], None]) -> None:
        while not self._over.is_set():
            self._peak = max(self._peak, self._allocated_gb(root))
            if self._limit is not None and self._peak > self._limit:
                self.exceeded = True
                kill()
                return
            self._over.wait(SAMPLE_SECONDS)

    def _allocated_gb(self, root: int | None = None) -> float:
        """The memory that is listed for the job; else that allocated since its start."""
        if root and (listed := _listed_gb(self._device, root)) is not None:
            return listed
        used = held_gb(self._device)
        return 0.0 if used is None or self._before is None else used - self._before

    def problems(self) -> list[str]:
        """Stop sampling; one line each for memory over the limit and memory that stays allocated.

        Call this after all processes of the job have ended. While other processes use the same GPU, remaining memory
        cannot be attributed and is not reported.
        """
        self._over.set()
        if self._thread is not None:
            self._thread.join()
        found = [f"used more than {self._limit:.3g} GiB of the GPU's memory"] if self.exceeded else []
        deadline = time.monotonic() + PATIENCE
        while (left := self._allocated_gb()) > SLACK_GB and not _processes(self._device):
            if time.monotonic() > deadline:
                return [*found, f"left {left * MIB_PER_GB:.0f} MB of the GPU's memory in use"]
            time.sleep(0.2)
        return found


def _processes(device: Device, names: bool = False) -> list[tuple[int, str, float | None]]:
    """Id, name and MiB of each process on a GPU; None where the driver's tool does not report the memory.

    A process chooses its own name, and could forge lines with it: ``names`` is for messages, never for limits.
    """
    if device.kind == "rocm":
        return amd.processes(device)
    found = []
    for line in _query(device, f"compute-apps=pid,used_memory{',process_name' if names else ''}").splitlines():
        pid, held, name = [*line.split(", ", 2), "", ""][:3]
        if _is_number(pid):
            found.append((int(pid), Path(name).name, float(held) if _is_number(held) else None))
    return found


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _listed_gb(device: Device, root: int) -> float | None:
    """The memory that is listed for a process and its descendants; None if none is."""
    own = {root, *descendants(root)}
    listed = [held for pid, _, held in _processes(device) if pid in own and held is not None]
    return sum(listed) / MIB_PER_GB if listed else None


def _query(device: Device, what: str) -> str:
    """What nvidia-smi reports for this GPU, in MiB and without headings; empty if it fails or for other devices."""
    if device.kind != "cuda":
        return ""
    return output_of("nvidia-smi", f"--query-{what}", "--format=csv,noheader,nounits", "-i", device.uuid or "0")
