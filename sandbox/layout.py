"""What all sandboxes share before a job starts: checks of the job, its paths and environment, marks of its owner.

Every directory, control group, container and volume of a job carries its owner's label and the identity of the process
that started it. So a sweep finds what dead processes left, and nothing else.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import stat
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from sandbox.collect import check_name
from sandbox.types import Job, Limits

INSIDE = "/overnight"  # parent of a job's mounts in bwrap and Docker
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
UNPRIVILEGED = 64537  # user and group of all jobs of root where a user namespace maps too few users
_FIRST_USER, _USERS = 1 << 30, 1 << 24  # otherwise each job has a user from this range
PROC = Path("/proc")  # not on macOS
GB = 1024**3
MB = 1024**2
INODES = 200_000  # files in a job's file system in memory: names need memory too

# Exact counters of the whole machine: one job can change them, and a later one can read them without a clock.
COUNTERS = tuple(
    f"/proc/{name}"
    for name in (
        "buddyinfo", "cgroups", "diskstats", "fs", "interrupts", "irq", "key-users", "loadavg", "locks", "meminfo",
        "pagetypeinfo", "pressure", "schedstat", "slabinfo", "softirqs", "stat", "swaps", "sys/fs/dentry-state",
        "sys/fs/file-nr", "sys/fs/inode-nr", "sys/fs/inode-state", "timer_list", "vmstat", "zoneinfo",
    )
)  # fmt: skip

_PLACE = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")
_MOUNT = re.compile(r"[a-z][a-z0-9_]*")


def check_job(job: Job) -> None:
    """Check what the caller specified. Raises ValueError: no sandbox could run this job."""
    if not job.argv:
        raise ValueError("a job needs a command")
    for name, mount in job.mounts.items():
        if not _MOUNT.fullmatch(name) or name in ("out", "python"):
            raise ValueError(f"{name!r} is not a valid name of a mount")
        if not mount.source.is_dir():
            raise ValueError(f"the source of mount {name!r} is not a directory: {mount.source}")
        for file in mount.writable:
            if not stat.S_ISREG((mount.source / file).lstat().st_mode):
                raise ValueError(f"{file!r} in mount {name!r} is not a file")
    if job.workdir not in job.mounts:
        raise ValueError(f"the working directory {job.workdir!r} is not a mount: use one of {sorted(job.mounts)}")
    if job.collect and job.collect_to is None:
        raise ValueError("a job with files to collect needs collect_to")
    for item in job.collect:
        check_name(item.name)
    for name in job.masked:
        if name.startswith("/") or ".." in name.split("/") or not name.strip("/"):
            raise ValueError(f"{name!r} is not a path inside the standard library's folder")


def fill(text: str, places: Mapping[str, str]) -> str:
    """Replace each ``{name}`` by its path; unknown names stay."""
    return _PLACE.sub(lambda match: places.get(match[1], match[0]), text)


def command(job: Job, places: Mapping[str, str]) -> list[str]:
    """The job's command with paths filled in."""
    return [fill(word, places) for word in job.argv]


def environment(job: Job, places: Mapping[str, str], temporary: str) -> dict[str, str]:
    """All environment variables of the job; nothing is inherited. ``temporary``: its private temporary folder."""
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
        "CUDA_VISIBLE_DEVICES": job.device.visible,
    }
    if job.device.threads > 0:
        names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
        env |= dict.fromkeys(names, str(job.device.threads))
    return env | {name: fill(value, places) for name, value in job.env.items()}


def largest_file(limits: Limits) -> int:
    """Bytes of the largest file that a job may write."""
    return int(limits.disk_gb * GB if limits.file_mb is None else min(limits.disk_gb * GB, limits.file_mb * MB))


def scratch_bytes(job: Job) -> int:
    """Size of a file system in memory that the job writes to."""
    return int(min(job.limits.disk_gb, job.limits.memory_gb) * GB)


def cached(key: str, make: Callable[[Path], object]) -> Path:
    """The folder for ``key`` in the user's cache; ``make`` fills it at the first use."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "overnight" / "stdlib"
    folder = cache / hashlib.sha256(key.encode()).hexdigest()[:16]
    if not folder.is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".making-", dir=cache, ignore_cleanup_errors=True) as scratch:
            content = Path(scratch) / "content"  # private until complete
            content.mkdir()
            make(content)
            content.chmod(0o755)
            if not folder.is_dir():  # another session may have been faster
                content.rename(folder)
    return folder


def job_user() -> int:
    """A user and group for one job of root. The kernel counts some resources per user, so jobs must not share one."""
    ranges = (line.split() for line in Path("/proc/self/uid_map").read_text().splitlines())
    if any(int(first) <= _FIRST_USER and int(first) + int(n) >= _FIRST_USER + _USERS for first, _, n in ranges):
        return _FIRST_USER + secrets.randbelow(_USERS)
    return UNPRIVILEGED


def label(owner: str) -> str:
    """A short hash of the owner that is safe in paths."""
    return hashlib.sha256(owner.encode()).hexdigest()[:12]


def identity(pid: int | None = None) -> str:
    """``PID-STARTTIME``, unique per process since boot. ``pid``: this process by default."""
    pid = pid or os.getpid()
    if not (PROC / "self").exists():  # a later process with the same id looks alike
        return f"{pid}-{'alive' if exists(pid) else 'gone'}"
    try:
        fields = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return f"{pid}-gone"
    return f"{pid}-{fields[19]}"


def exists(pid: int) -> bool:
    """Whether a process with this id runs on this machine."""
    try:
        os.kill(pid, 0)
    except OSError as error:
        return isinstance(error, PermissionError)
    return True


def alive(mark: str) -> bool:
    """Whether the process with this identity still runs on this machine."""
    pid = mark.partition("-")[0]
    return pid.isdigit() and not mark.endswith("-gone") and identity(int(pid)) == mark


def job_name(owner: str) -> str:
    """A new name for the directory, control group or container of one job."""
    return f"overnight-{label(owner)}-{identity()}-{secrets.token_hex(4)}"


def orphaned(name: str, owner: str) -> bool:
    """Whether ``name`` is a ``job_name`` of this owner whose process has ended."""
    prefix = f"overnight-{label(owner)}-"
    return name.startswith(prefix) and not alive("-".join(name[len(prefix) :].split("-")[:2]))
