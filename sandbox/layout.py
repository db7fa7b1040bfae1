"""What every sandbox does alike before a job starts: its names, its environment, its owner's mark."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import socket
from collections.abc import Mapping
from pathlib import Path

from sandbox.collect import check_name
from sandbox.types import Job

INSIDE = "/overnight"  # where the mounts of a job appear in bwrap and Docker
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
UNPRIVILEGED = 64537  # user and group of the jobs of a session that root runs; nobody else has it
GB = 1024**3
MB = 1024**2

_PLACE = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")
_MOUNT = re.compile(r"[a-z][a-z0-9_]*")


def check_job(job: Job) -> None:
    """Raises ``ValueError`` for a job that no sandbox could run: a mistake of the caller, not of the job."""
    if not job.argv:
        raise ValueError("a job needs a command")
    for name, mount in job.mounts.items():
        if not _MOUNT.fullmatch(name) or name in ("out", "python"):
            raise ValueError(f"{name!r} cannot be the name of a mount")
        if not mount.source.is_dir():
            raise ValueError(f"the source of mount {name!r} is no directory: {mount.source}")
    if job.workdir not in job.mounts:
        raise ValueError(f"the working directory {job.workdir!r} is none of the mounts {sorted(job.mounts)}")
    if job.collect and job.collect_to is None:
        raise ValueError("a job that brings files back needs collect_to")
    for item in job.collect:
        check_name(item.name)
    for name in job.masked:
        if name.startswith("/") or ".." in name.split("/") or not name.strip("/"):
            raise ValueError(f"{name!r} is no name in the standard library's folder")


def fill(text: str, places: Mapping[str, str]) -> str:
    """Replace ``{name}`` by its place; braces around anything else stay."""
    return _PLACE.sub(lambda match: places.get(match[1], match[0]), text)


def command(job: Job, places: Mapping[str, str]) -> list[str]:
    return [fill(word, places) for word in job.argv]


def environment(job: Job, places: Mapping[str, str], temporary: str) -> dict[str, str]:
    """All environment variables that the job gets: nothing is inherited."""
    env = {
        "PATH": PATH,
        "LANG": "C.UTF-8",
        "HOME": temporary,
        "TMPDIR": temporary,
        "USER": "overnight",
        "LOGNAME": "overnight",
        "XDG_CACHE_HOME": f"{temporary}/.cache",
        "TRITON_CACHE_DIR": f"{temporary}/.cache/triton",
        "TORCHINDUCTOR_CACHE_DIR": f"{temporary}/.cache/inductor",
        "PYTHONNOUSERSITE": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "1",
        "CUDA_VISIBLE_DEVICES": (job.device.uuid or "0") if job.device.kind == "cuda" else "",
    }
    if job.device.threads > 0:
        for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
            env[name] = str(job.device.threads)
    env.update({name: fill(value, places) for name, value in job.env.items()})
    return env


# Marks: every directory, cgroup, container and volume of a job carries its owner's label and the identity of the
# process that started it, so that a sweep finds what dead processes left and nothing else.


def label(owner: str) -> str:
    """A short name for the owner that is safe in paths."""
    return hashlib.sha256(owner.encode()).hexdigest()[:12]


def identity(pid: int | None = None) -> str:
    """``pid-starttime`` of a process: no other process on this machine ever has the same since boot."""
    pid = pid or os.getpid()
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return f"{pid}-gone"
    return f"{pid}-{fields[19]}"


def alive(mark: str) -> bool:
    """Whether the process with this identity still runs on this machine."""
    pid = mark.partition("-")[0]
    return pid.isdigit() and identity(int(pid)) == mark


def job_name(owner: str) -> str:
    """A fresh name for the things of one job."""
    return f"overnight-{label(owner)}-{identity()}-{secrets.token_hex(4)}"


def orphaned(name: str, owner: str) -> bool:
    """Whether ``name`` is a ``job_name`` of this owner whose process is dead."""
    prefix = f"overnight-{label(owner)}-"
    return name.startswith(prefix) and not alive("-".join(name[len(prefix) :].split("-")[:2]))


def host() -> str:
    return socket.gethostname()
