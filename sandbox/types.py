"""The interface of a sandbox: the job, the guarantees and the outcome. Each implementation is one module.

A job that fails is a result (``Outcome``). A sandbox that fails raises ``SandboxBroken``, or ``SandboxUnavailable``
before the first job starts.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from sandbox.interpreter import OWN, Interpreter


class SandboxUnavailable(RuntimeError):
    """This sandbox cannot be used on this machine. The message ends with the command that fixes it."""


class SandboxBroken(RuntimeError):
    """The sandbox itself failed (Docker stopped, host disk full). The failure says nothing about the job."""


class Guarantee(enum.Enum):
    """What a sandbox can guarantee. ``sandbox.selfcheck`` tests each guarantee that a sandbox declares."""

    KILLS_TREE = "every process of the job ends with it, daemons included"
    LIMITS_MEMORY = "the job cannot use more memory than its limit"
    LIMITS_PROCESSES = "the job cannot start more processes than its limit"
    LIMITS_DISK = "the job cannot fill the disk"
    NO_NETWORK = "the job cannot open a connection"
    READ_ONLY_CODE = "the job cannot change its code, its data or the machine"
    BOUNDED_OUTPUT = "the job's output and its collected files are bounded in size"
    MASKS_FILES = "named files of the standard library are hidden"
    HIDES_HOST = "the job sees only the host files that it was given"
    CLEAN_ENVIRONMENT = "the job inherits no environment variables"
    ISOLATES_JOBS = "jobs share no locks, watches or cache control; timing remains"
    UNPRIVILEGED = "the job does not run as root"


@dataclass(frozen=True)
class Mount:
    """A host directory that the job sees as ``{name}``. Files added on the host later are visible at once."""

    source: Path
    readonly: bool = True
    writable: tuple[str, ...] = ()  # files in a read-only mount that the job can write


@dataclass(frozen=True)
class Limits:
    """What a job may use. GB means 2**30 bytes, MB 2**20 bytes."""

    memory_gb: float = 8.0
    disk_gb: float = 4.0  # all files that the job writes
    processes: int = 512  # processes and threads
    output_mb: float = 16.0  # stdout and stderr together; the rest is dropped and counted
    cpus: float | None = None  # None: no limit
    vram_gb: float | None = None  # memory of the GPU, sampled twice a second; None: no limit
    file_mb: float | None = None  # each file that the job writes; None: as all files


@dataclass(frozen=True)
class Device:
    """The processor that a job computes on."""

    kind: str = "cpu"  # cpu, cuda (NVIDIA), rocm (AMD) or mps (Apple)
    uuid: str = ""  # the GPU; empty: the first one
    threads: int = 0  # CPU threads; 0: the job decides
    model: str = ""  # the GPU's name as its driver reports it
    number: str = ""  # of an AMD GPU, as HIP counts them

    @property
    def torch(self) -> str:
        """PyTorch's name of the device: builds for ROCm use the name cuda."""
        return "cuda" if self.kind == "rocm" else self.kind

    @property
    def visible(self) -> str:
        """CUDA_VISIBLE_DEVICES of the job, which HIP reads too."""
        return {"cuda": self.uuid or "0", "rocm": self.number or "0"}.get(self.kind, "")

    @property
    def type(self) -> str:
        """Runs on devices of one type are comparable."""
        return self.model or self.kind


@dataclass(frozen=True)
class Collect:
    """One regular file to copy back from the job's output directory. Other files there are dropped."""

    name: str
    max_bytes: int


@dataclass(frozen=True)
class Job:
    """One command in a sandbox.

    ``{python}``, ``{out}`` and the ``{NAME}`` of each mount are replaced by their paths inside the sandbox, in
    ``argv`` and in the values of ``env``. The job may write only to ``{out}``, to its private ``/tmp`` and to mounts
    that are not read-only.
    """

    argv: tuple[str, ...]
    mounts: Mapping[str, Mount]
    workdir: str  # name of the mount that is the working directory
    env: Mapping[str, str] = field(default_factory=dict)
    limits: Limits = Limits()
    device: Device = Device()
    collect: tuple[Collect, ...] = ()
    collect_to: Path | None = None  # host directory for the collected files
    log: Path | None = None  # host file for the job's output, up to ``limits.output_mb``
    masked: tuple[str, ...] = ()  # files and packages to hide ("turtle.py"); "*.py": the standard library's sources
    hides_counters: bool = False  # hide the kernel's counters for the whole machine, such as /proc/stat
    forgotten: bool = False  # after its end, drop the kernel's caches of files, if this process may
    owner: str = ""  # label of the session; ``sweep`` removes what its dead processes left
    python: Interpreter = OWN  # not used by Docker


@dataclass(frozen=True)
class Outcome:
    """How a job ended. Exactly one of ``exit_code`` and ``signal`` is set."""

    exit_code: int | None
    signal: int | None
    out_of_memory: bool  # main memory or GPU memory
    seconds: float  # wall clock
    peak_memory_gb: float | None  # in units of 10**9 bytes
    log_tail: str  # last lines, control characters removed
    collected: Mapping[str, Path]  # name in the output directory, copy on the host
    peak_vram_gb: float | None = None  # GPU memory, in units of 10**9 bytes
    problems: tuple[str, ...] = ()  # one line each: a link among the outputs, too much written, ...


class Running(Protocol):
    """A started job."""

    @property
    def processor_seconds(self) -> float:
        """Processor time of all its processes until now, sampled at this call."""

    def read(self, timeout: float) -> list[str] | None:
        """The lines since the last call; [] if none came within ``timeout`` seconds; None after the last line."""

    def kill(self) -> None:
        """Kill every process of the job. Callable at any time and repeatedly."""

    def finish(self) -> Outcome:
        """Wait for the end, collect the outputs and clean up. Must also be called after ``kill``."""


class Sandbox(Protocol):
    """Runs jobs under a set of guarantees."""

    name: str

    @property
    def guarantees(self) -> frozenset[Guarantee]:
        """The guarantees that hold on this machine."""

    def check(self) -> None:
        """Raise ``SandboxUnavailable`` unless a job can start now."""

    def start(self, job: Job) -> Running:
        """Start a job. Raises ``SandboxBroken`` when the sandbox itself fails."""

    def sweep(self, owner: str) -> int:
        """Remove what dead processes of this owner left behind. Returns the number of removed objects."""
