"""What a sandbox is asked to run, what it promises, and what comes back. One protocol, a provider per file.

A job that fails is a result (``Outcome``); a sandbox that is broken raises ``SandboxBroken`` or, before anything was
started, ``SandboxUnavailable``. Nothing here knows about agents, git or metrics.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol


class SandboxUnavailable(RuntimeError):
    """This sandbox cannot be used on this machine. The message ends with the line that mends it."""


class SandboxBroken(RuntimeError):
    """The machinery failed while a job ran (daemon gone, disk of the host full). The job is not to blame."""


class Guarantee(enum.Enum):
    """What a sandbox can promise on this machine. The contract suite tests exactly what is declared."""

    KILLS_TREE = "every process of the job is gone when it ends, daemons included"
    LIMITS_MEMORY = "the job cannot use more memory than its limit"
    LIMITS_PROCESSES = "the job cannot start more processes than its limit"
    LIMITS_DISK = "the job cannot fill the disk"
    NO_NETWORK = "the job cannot open a connection"
    READ_ONLY_CODE = "the job cannot change its code, its data or the machine"
    BOUNDED_OUTPUT = "what the job prints and leaves is cut to size"
    MASKS_FILES = "files that the job must not see are hidden"
    HIDES_HOST = "the job sees no files of the host but those it was given"
    CLEAN_ENVIRONMENT = "the job inherits no environment variables"
    UNPRIVILEGED = "the job does not run as root"


@dataclass(frozen=True)
class Mount:
    """A host directory that the job sees under ``{name}``. Files that the host adds later appear at once."""

    source: Path
    readonly: bool = True


@dataclass(frozen=True)
class Limits:
    memory_gb: float = 8.0
    disk_gb: float = 4.0  # of everything the job writes
    processes: int = 512  # threads included
    output_mb: float = 16.0  # of stdout and stderr together; the rest is dropped and counted
    cpus: float | None = None
    vram_gb: float | None = None  # of the GPU's memory; looked at from outside, twice a second


@dataclass(frozen=True)
class Device:
    kind: str = "cpu"  # cpu | cuda
    uuid: str = ""  # of the one GPU
    threads: int = 0  # 0: leave it to the job
    model: str = ""  # of the GPU, as its driver names it

    @property
    def type(self) -> str:
        """Values of runs on devices of one type can be compared."""
        return self.model or self.kind


@dataclass(frozen=True)
class Collect:
    """One regular file to bring back from the job's output directory; anything else there is dropped."""

    name: str
    max_bytes: int


@dataclass(frozen=True)
class Job:
    """One command in a sandbox.

    ``{python}``, ``{out}`` and ``{NAME}`` of each mount are replaced in ``argv`` and in the values of ``env`` by what
    they are called inside. The working directory is ``workdir`` (a mount's name). The job may write only to ``{out}``,
    to its private ``/tmp`` and to mounts that are not read-only.
    """

    argv: tuple[str, ...]
    mounts: Mapping[str, Mount]
    workdir: str
    env: Mapping[str, str] = field(default_factory=dict)
    limits: Limits = Limits()
    device: Device = Device()
    collect: tuple[Collect, ...] = ()
    collect_to: Path | None = None
    log: Path | None = None  # the job's output is written here, up to ``limits.output_mb``
    masked: tuple[str, ...] = ()  # names in the standard library's folder that must not be readable ("turtle.py")
    owner: str = ""  # label of the session, for the sweep of orphans


@dataclass(frozen=True)
class Outcome:
    """How a job ended. Exactly one of ``exit_code`` and ``signal`` is set."""

    exit_code: int | None
    signal: int | None
    out_of_memory: bool
    seconds: float
    peak_memory_gb: float | None
    log_tail: str  # the last lines, control characters removed
    output_truncated: bool
    collected: Mapping[str, Path]
    peak_vram_gb: float | None = None  # of the GPU's memory, as seen from outside
    problems: tuple[str, ...] = ()  # one line each: what was caught (a link in the outputs, too much disk, ...)


class Running(Protocol):
    """A job under way."""

    def read(self, timeout: float) -> list[str] | None:
        """Lines printed since the last call: at once if any, [] after ``timeout`` seconds, None at the end."""
        ...

    def kill(self) -> None:
        """End every process of the job now. May be called at any time and more than once."""
        ...

    def finish(self) -> Outcome:
        """Wait for the end, bring back the outputs, leave nothing behind. Call it also after ``kill``."""
        ...


class Sandbox(Protocol):
    """A place where a job runs."""

    name: str

    @property
    def guarantees(self) -> frozenset[Guarantee]:
        """What holds on this machine."""
        ...

    def check(self) -> None:
        """Raise ``SandboxUnavailable`` unless a job could start now."""
        ...

    def start(self, job: Job) -> Running:
        """Start a job. Raises ``SandboxBroken`` when the machinery fails."""
        ...

    def sweep(self, owner: str) -> int:
        """Remove what a dead session with this label left behind; how many things were removed."""
        ...
