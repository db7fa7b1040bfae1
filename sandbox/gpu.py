"""The one GPU of a job: its device files, how much of its memory the job takes, and whether that is free at the end.

No control group bounds the memory of a GPU. So the host looks with nvidia-smi, from outside of the job, and ends one
that holds too much. Between two looks a job can hold more for a moment.
"""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sandbox.supervisor import descendants
from sandbox.types import Device, SandboxBroken

LOOK_EVERY = 0.5  # seconds between two looks; nvidia-smi itself takes some tenths
SLACK_MB = 512.0  # the driver's own, which comes and goes
PATIENCE = 10.0  # seconds that the driver may take to give memory back
MIB_PER_GB = 1024.0
USABLE = 0.9  # of a GPU: a larger vram_gb was meant for a larger one
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


def gpus() -> dict[str, str]:
    """UUID and model of each GPU of this machine, in the order in which they are counted; none without a driver."""
    try:
        out = subprocess.run(
            ["nvidia-smi", "--query-gpu=uuid,name", "--format=csv,noheader"], capture_output=True, text=True, timeout=30
        )
    except (OSError, subprocess.TimeoutExpired):
        return {}
    lines = [line for line in out.stdout.splitlines() if line.startswith("GPU-")] if out.returncode == 0 else []
    return {uuid.strip(): model.strip() for uuid, _, model in (line.partition(",") for line in lines)}


@dataclass(frozen=True)
class Memory:
    """Of a whole GPU, whoever uses it; in GB of 2**30 bytes, as everywhere in the limits."""

    used_gb: float
    total_gb: float

    @property
    def free_gb(self) -> float:
        return self.total_gb - self.used_gb


def memory(device: Device) -> Memory | None:
    """None where there is no GPU, or nobody who knows."""
    if device.kind != "cuda":
        return None
    try:
        line = _query(device, "gpu=memory.used,memory.total").splitlines()[0]
        used, total = (float(word) for word in line.split(","))
    except (IndexError, ValueError):
        return None
    return Memory(used / MIB_PER_GB, total / MIB_PER_GB)


def holders(device: Device) -> list[str]:
    """The processes that compute on a GPU, in words: name, process, memory."""
    rows = (line.split(", ") for line in _query(device, "compute-apps=pid,process_name,used_memory").splitlines())
    return [f"{Path(row[1]).name} (process {row[0]}, {row[2]} MiB)" for row in rows if len(row) == 3]


def check_free(device: Device, needed_gb: float | None = None) -> None:
    """Whether a job finds its memory free: ``needed_gb``; if nobody has said how much, half of the GPU.

    Raises:
        SandboxBroken: others hold it, also after some seconds; names them.
    """
    deadline = time.monotonic() + PATIENCE
    while (now := memory(device)) is not None:
        needed = min(needed_gb if needed_gb is not None else now.total_gb / 2, USABLE * now.total_gb)
        if now.free_gb >= needed - SLACK_MB / MIB_PER_GB:
            return
        if time.monotonic() > deadline:
            who = holders(device)
            raise SandboxBroken(
                f"{now.free_gb:.1f} of the GPU's {now.total_gb:.1f} GB are free, and a trial may use {needed:.1f}. "
                f"{'Held by ' + ', '.join(who) if who else 'nvidia-smi names no process that holds the rest'}: "
                f"end what does not belong there, or set vram_gb in target.toml to what a trial may have"
            )
        time.sleep(0.2)


class MemoryWatch:
    """Looks at a GPU before a job, during it and after it. Without a GPU, or without nvidia-smi, it sees nothing.

    A job's memory is what nvidia-smi lists for its processes; where it lists none of them (in a container it may not
    see them), all that the GPU holds beyond what it held before, whoever holds it.
    """

    def __init__(self, device: Device, limit_gb: float | None = None) -> None:
        """``limit_gb``: GiB that the job may hold. Make it before the job starts."""
        self._device, self._limit = device, limit_gb
        self._before = _used_mb(device)
        self._peak = 0.0  # MiB
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        self.exceeded = False

    @property
    def peak_gb(self) -> float | None:
        """The most that was seen, in units of 10⁹ bytes; None where nothing was."""
        return round(self._peak * 2**20 / 1e9, 3) if self._peak else None

    def follow(self, root: int | None, kill: Callable[[], None]) -> None:
        """Look from now on. ``root``: the process above the job's, if it is known; ``kill`` is called once at most."""
        if self._before is not None:
            self._thread = threading.Thread(target=self._look, args=(root, kill), daemon=True)
            self._thread.start()

    def _look(self, root: int | None, kill: Callable[[], None]) -> None:
        while not self._over.is_set():
            self._peak = max(self._peak, self._held_mb(root))
            if self._limit is not None and self._peak > self._limit * 1024:
                self.exceeded = True
                kill()
                return
            self._over.wait(LOOK_EVERY)

    def _held_mb(self, root: int | None) -> float:
        own = {root, *descendants(root)} if root else set()
        listed = [used for pid, used in _processes(self._device) if pid in own]
        if listed:
            return sum(listed)
        used = _used_mb(self._device)
        return 0.0 if used is None or self._before is None else used - self._before

    def problems(self) -> list[str]:
        """Call it when every process of the job is dead: what it took too much, or has left in use, in words.

        While another process computes on the same GPU, nobody can tell whose memory is left, and nothing is said of it.
        """
        self._over.set()
        if self._thread is not None:
            self._thread.join()
        taken = [f"used more than {self._limit:.3g} GiB of the GPU's memory"] if self.exceeded else []
        return taken + self._left()

    def _left(self) -> list[str]:
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


def _processes(device: Device) -> list[tuple[int, float]]:
    """Processes that compute on this GPU and the MiB that each holds, as far as nvidia-smi tells."""
    found = []
    for line in _query(device, "compute-apps=pid,used_memory").splitlines():
        pid, _, used = line.partition(",")
        try:
            found.append((int(pid), float(used)))
        except ValueError:  # [N/A]: not told here
            continue
    return found


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
