"""GPUs: which there are; the device files of a job's one, and whether its memory is free when the job has ended."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

from sandbox.types import Device, SandboxBroken

SLACK_MB = 512.0  # the driver's own, which comes and goes
PATIENCE = 10.0  # seconds that the driver may take to give memory back
_SHARED = ("nvidiactl", "nvidia-uvm", "nvidia-uvm-tools", "nvidia-caps")


def nodes(device: Device, information: Path = Path("/proc/driver/nvidia/gpus"), dev: Path = Path("/dev")) -> list[Path]:
    """The device files that a job on this GPU needs: those of the driver, and of the other GPUs none.

    Raises:
        SandboxBroken: this machine has no such GPU.
    """
    if device.kind != "cuda":
        return []
    minors: dict[str, str] = {}
    for file in sorted(information.glob("*/information")):
        facts = dict(line.split(":", 1) for line in file.read_text().splitlines() if ":" in line)
        minors[facts.get("GPU UUID", "").strip()] = facts.get("Device Minor", "").strip()
    if device.uuid and device.uuid not in minors:
        raise SandboxBroken(f"this machine has no GPU {device.uuid}; it has {', '.join(sorted(minors)) or 'none'}")
    own = [minors[device.uuid]] if device.uuid else list(minors.values())[:1]
    return [dev / name for name in (*_SHARED, *(f"nvidia{minor}" for minor in own)) if (dev / name).exists()]


def uuids() -> list[str]:
    """The GPUs of this machine, in the order in which they are counted; none without a driver."""
    try:
        out = subprocess.run(
            ["nvidia-smi", "--query-gpu=uuid", "--format=csv,noheader"], capture_output=True, text=True, timeout=30
        )
    except (OSError, subprocess.TimeoutExpired):
        return []
    return [line.strip() for line in out.stdout.splitlines() if line.startswith("GPU-")] if out.returncode == 0 else []


class MemoryWatch:
    """Looks at a GPU before a job and after it. Without a GPU, or without nvidia-smi, it sees nothing."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._before = _used_mb(device)

    def problems(self) -> list[str]:
        """Call it when every process of the job is dead: what it has left in the GPU's memory, in words.

        While another process computes on the same GPU, nobody can tell whose memory it is, and nothing is said.
        """
        if self._before is None:
            return []
        deadline = time.monotonic() + PATIENCE
        while (used := _used_mb(self._device)) is not None and used > self._before + SLACK_MB:
            if _query(self._device, "compute-apps=pid"):
                return []
            if time.monotonic() > deadline:
                return [f"left {used - self._before:.0f} MB of the GPU's memory in use"]
            time.sleep(0.2)
        return []


def _used_mb(device: Device) -> float | None:
    if device.kind != "cuda":
        return None
    try:
        return float(_query(device, "gpu=memory.used").splitlines()[0])
    except (IndexError, ValueError):
        return None


def _query(device: Device, what: str) -> str:
    """What nvidia-smi says of this GPU, in MiB and without headings; nothing where there is none."""
    command = ["nvidia-smi", f"--query-{what}", "--format=csv,noheader,nounits", "-i", device.uuid or "0"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
