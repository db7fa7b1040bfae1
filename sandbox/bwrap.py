"""Namespaces made by bubblewrap, as root or as an ordinary user.

Covers: no network; the job sees only Python, the system's libraries and its mounts, all read-only; all processes end
with the job; named files of the standard library are hidden; system calls are filtered by seccomp.json if libseccomp is
installed; only the device files of the job's own GPU. When root runs the session, the job runs as an unprivileged user.

| limit | with control groups | without |
|---|---|---|
| memory | control group | sampled by the supervisor |
| processes | control group | limit of the user namespace (Linux 5.14 and later, not for root) |
| disk | root: a file system in memory of fixed size; others: sampled, and a limit per file | the same |

Does not cover: a sampled limit can be exceeded for a moment.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from sandbox import cgroups, gpu, layout, local, masks, seccomp
from sandbox.layout import INSIDE
from sandbox.types import Guarantee, Job, Limits, Running, SandboxUnavailable

_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
_FILES = ("/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/alternatives", "/etc/localtime")
_FIX = "Install it (apt-get install bubblewrap), and allow user namespaces (sysctl kernel.unprivileged_userns_clone=1)."
# Runs inside, before the job: gives up root and its inheritable capabilities, and limits processes.
_BECOME = """
import ctypes, os, resource, sys
user, processes = int(sys.argv[1]), int(sys.argv[2])
if user:
    os.setgroups([])
    os.setgid(user)
    os.setuid(user)
    ctypes.CDLL(None).capset((ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)())
if processes:
    resource.setrlimit(resource.RLIMIT_NPROC, (processes, processes))
try:
    os.execvp(sys.argv[3], sys.argv[3:])
except OSError as error:
    sys.exit(f"cannot start {sys.argv[3]}: {error}")
"""


class BwrapSandbox:
    """Needs the program bwrap and user namespaces."""

    name = "bwrap"

    def __init__(self) -> None:
        self._program = shutil.which("bwrap") or ""
        held = set(Guarantee) - {Guarantee.LIMITS_PROCESSES}
        if "pids" in cgroups.controllers() or (os.geteuid() != 0 and _counts_by_namespace()):
            held.add(Guarantee.LIMITS_PROCESSES)
        self.guarantees = frozenset(held)

    def check(self) -> None:
        if not self._program:
            raise SandboxUnavailable(f"bubblewrap is not installed. {_FIX}")
        done = subprocess.run(
            [*self._namespaces(), *_system(size=1 << 20), "--", *_become(Limits()), "/bin/true"],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        if done.returncode:
            raise SandboxUnavailable(f"bubblewrap does not work here ({done.stderr.strip()[:200]}). {_FIX}")

    def start(self, job: Job) -> Running:
        layout.check_job(job)
        with local.scratch_for(job) as scratch:
            return self._start(job, scratch)

    def sweep(self, owner: str) -> int:
        return local.sweep(owner)

    def _start(self, job: Job, scratch: Path) -> Running:
        places = {name: f"{INSIDE}/{name}" for name in job.mounts}
        places |= {"out": f"{INSIDE}/out", "python": sys.executable}
        size = layout.scratch_bytes(job)
        if not os.geteuid():
            local.mount_memory(scratch / "out", size, layout.UNPRIVILEGED)
        argv = [*self._namespaces(), *_system(size), *_hide(job.masked, str(scratch / "tmp"))]
        for node in gpu.nodes(job.device):
            argv += ["--dev-bind", str(node), str(node)]
        argv += _ancestors(places["out"])
        for name, mount in job.mounts.items():
            argv += ["--ro-bind" if mount.readonly else "--bind", str(mount.source.resolve()), places[name]]
        argv += ["--bind", str(scratch / "out"), places["out"], "--chdir", places[job.workdir], "--clearenv"]
        for name, value in layout.environment(job, places, "/tmp").items():
            argv += ["--setenv", name, value]
        argv += ["--remount-ro", "/dev", "--remount-ro", "/"]
        descriptor = seccomp.open_program()
        descriptors = () if descriptor is None else (descriptor,)
        argv += [word for number in descriptors for word in ("--seccomp", str(number))]
        argv += ["--", *_become(job.limits), *layout.command(job, places)]
        command = local.Command(argv, {"PATH": layout.PATH}, "/", descriptors, namespace=True)
        return local.LocalRunning(job, command, scratch)

    def _namespaces(self) -> list[str]:
        namespaces = ("ipc", "pid", "net", "uts", "cgroup-try")
        argv = [self._program, *(f"--unshare-{name}" for name in namespaces), "--die-with-parent", "--new-session"]
        argv += ["--hostname", "overnight", "--cap-drop", "ALL"]
        if os.geteuid():
            return [*argv, "--unshare-user", "--uid", "1000", "--gid", "1000"]
        # Root in a user namespace still owns root's files, such as /proc/sys/kernel/core_pattern. So there is none,
        # and the job changes its user first.
        return [*argv, "--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]


def _system(size: int) -> list[str]:
    """Mounts for the system and the interpreter, and writable file systems in memory of ``size`` bytes each."""
    argv: list[str] = []
    for name in _SYSTEM:
        place = Path(name)
        if place.is_symlink():
            argv += ["--symlink", str(place.readlink()), name]
        elif place.is_dir():
            argv += ["--ro-bind", name, name]
    for name in _FILES:
        argv += ["--ro-bind-try", name, name]
    argv += ["--proc", "/proc", "--dev", "/dev"]
    for folder in ("/tmp", "/dev/shm"):
        argv += ["--perms", "1777", "--size", str(size), "--tmpfs", folder]
    for prefix in dict.fromkeys((sys.base_prefix, sys.prefix)):  # after /tmp, which may contain them
        if not prefix.startswith("/usr"):
            argv += [*_ancestors(prefix), "--ro-bind", prefix, prefix]
    return argv


def _ancestors(path: str) -> list[str]:
    """Make the folders above ``path`` accessible to all users; bubblewrap makes them private."""
    folders = [str(p) for p in reversed(Path(path).parents)][1:]
    return [word for folder in folders for word in ("--perms", "0755", "--dir", folder)]


def _become(limits: Limits) -> list[str]:
    """The command that changes the user and limits processes before the job; empty if nothing is to be done."""
    user, processes = (0, limits.processes) if os.geteuid() else (layout.UNPRIVILEGED, 0)
    if not user and not _counts_by_namespace():
        return []
    return [sys.executable, "-I", "-S", "-c", _BECOME, str(user), str(processes)]


def _counts_by_namespace() -> bool:
    """Whether the kernel counts processes per user namespace (since 5.14), not all processes of the user."""
    return tuple(int(n) for n in re.findall(r"\d+", os.uname().release)[:2]) >= (5, 14)


def _hide(names: tuple[str, ...], empty: str) -> list[str]:
    """Mounts that hide files and packages of the standard library. ``empty``: an empty folder."""
    covers = ((empty if Path(path).is_dir() else "/dev/null", path) for path in masks.find(names))
    return [word for cover, path in covers for word in ("--ro-bind", cover, path)]
