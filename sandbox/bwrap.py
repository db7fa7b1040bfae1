"""Namespaces by bubblewrap, as root or as an ordinary user.

Covers: no network; nothing of the host is visible but Python, the system's libraries and the job's mounts, all of it
read-only; the whole tree dies with the job; named files of the standard library are hidden; memory by a control
group, else by a watchdog that looks ten times a second; what it writes by memory of fixed size when root runs the
session, else by a watchdog and a limit per file; processes by a control group, or by the limit of an ordinary user's
namespace; system calls by seccomp.json, where the machine has libseccomp; of GPUs only the device files of its own.
When root runs the session, the job is a user that nobody else is. Does not cover, against Docker: a watchdog is no
quota, so that the disk may take more than its limit for a moment.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from functools import cache
from pathlib import Path

from sandbox import cgroups as groups
from sandbox import gpu, layout, local, seccomp
from sandbox.layout import GB, INSIDE
from sandbox.types import Guarantee, Job, Limits, Running, SandboxUnavailable

_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
_FILES = ("/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/alternatives", "/etc/localtime")
_MEND = (
    "Install it (apt-get install bubblewrap), and allow user namespaces (sysctl kernel.unprivileged_userns_clone=1)."
)
# The last words before a job. Another user has no capabilities any more, but for the inheritable ones.
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
    """Needs the program bwrap, and user namespaces."""

    name = "bwrap"

    def __init__(self) -> None:
        self._program = shutil.which("bwrap") or ""
        held = set(Guarantee) - {Guarantee.LIMITS_PROCESSES}
        if "pids" in groups.controllers() or (os.geteuid() != 0 and _counts_by_namespace()):
            held.add(Guarantee.LIMITS_PROCESSES)
        self.guarantees = frozenset(held)

    def check(self) -> None:
        if not self._program:
            raise SandboxUnavailable(f"bubblewrap is not installed. {_MEND}")
        done = subprocess.run(
            [*self._namespaces(), *self._system(size=str(1 << 20)), "--", *_become(Limits()), "/bin/true"],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        if done.returncode:
            raise SandboxUnavailable(f"bubblewrap does not work here ({done.stderr.strip()[:200]}). {_MEND}")

    def start(self, job: Job) -> Running:
        layout.check_job(job)
        with local.scratch_for(job) as scratch:
            return self._start(job, scratch)

    def sweep(self, owner: str) -> int:
        return local.sweep(owner)

    def _start(self, job: Job, scratch: Path) -> Running:
        places = {name: f"{INSIDE}/{name}" for name in job.mounts}
        places |= {"out": f"{INSIDE}/out", "python": sys.executable}
        env = layout.environment(job, places, "/tmp")
        size = str(int(min(job.limits.disk_gb, job.limits.memory_gb) * GB))
        if not os.geteuid():
            local.mount_memory(scratch / "out", int(size), layout.UNPRIVILEGED)
        argv = [*self._namespaces(), *self._system(size), *_masks(job.masked, str(scratch / "tmp"))]
        for node in gpu.nodes(job.device):
            argv += ["--dev-bind", str(node), str(node)]
        argv += _ancestors(places["out"])
        for name, mount in job.mounts.items():
            argv += ["--ro-bind" if mount.readonly else "--bind", str(mount.source.resolve()), places[name]]
        argv += ["--bind", str(scratch / "out"), places["out"], "--chdir", places[job.workdir], "--clearenv"]
        for name, value in env.items():
            argv += ["--setenv", name, value]
        argv += ["--remount-ro", "/dev", "--remount-ro", "/"]
        descriptors = _filter()
        for descriptor in descriptors:
            argv += ["--seccomp", str(descriptor)]
        argv += ["--", *_become(job.limits), *layout.command(job, places)]
        command = local.Command(argv, {"PATH": layout.PATH}, "/", descriptors, namespace=True)
        return local.LocalRunning(job, command, scratch)

    def _namespaces(self) -> list[str]:
        argv = [
            self._program,
            "--unshare-ipc",
            "--unshare-pid",
            "--unshare-net",
            "--unshare-uts",
            "--unshare-cgroup-try",
        ]
        argv += ["--die-with-parent", "--new-session", "--hostname", "overnight", "--cap-drop", "ALL"]
        if os.geteuid():
            return [*argv, "--unshare-user", "--uid", "1000", "--gid", "1000"]
        # Root inside a user namespace is still the owner of root's files, such as /proc/sys/kernel/core_pattern. So
        # root makes the other namespaces as root, and the job starts by becoming somebody else.
        return [*argv, "--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]

    @staticmethod
    def _system(size: str) -> list[str]:
        """The system, the interpreter, and folders in memory of ``size`` bytes that can be written to."""
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
        for folder in ("/tmp", "/dev/shm"):  # the root and /dev cannot be written to, in the end
            argv += ["--perms", "1777", "--size", size, "--tmpfs", folder]
        for prefix in dict.fromkeys((sys.base_prefix, sys.prefix)):  # after /tmp, which may hold them
            if not prefix.startswith("/usr"):
                argv += [*_ancestors(prefix), "--ro-bind", prefix, prefix]
        return argv


def _ancestors(path: str) -> list[str]:
    """Make the folders above ``path`` such that every user may pass: bubblewrap would make them its own."""
    folders = [str(p) for p in reversed(Path(path).parents)][1:]
    return [word for folder in folders for word in ("--perms", "0755", "--dir", folder)]


def _become(limits: Limits) -> list[str]:
    """The words before a command that take from it what bubblewrap leaves it."""
    user, processes = (0, limits.processes) if os.geteuid() else (layout.UNPRIVILEGED, 0)
    if not user and not _counts_by_namespace():
        return []
    return [sys.executable, "-I", "-S", "-c", _BECOME, str(user), str(processes)]


def _counts_by_namespace() -> bool:
    """Whether the kernel counts a user's processes in each user namespace by itself (since 5.14).

    An older one would count what else the user runs: a browser alone has hundreds of threads.
    """
    return tuple(int(n) for n in re.findall(r"\d+", os.uname().release)[:2]) >= (5, 14)


def _filter() -> tuple[int, ...]:
    descriptor = seccomp.open_program()
    return () if descriptor is None else (descriptor,)


_NO_PYTHON = {"site-packages", "dist-packages", "node_modules", "doc", "include", "locale", "man", "icons", "fonts"}


@cache
def _libraries(root: str) -> tuple[Path, ...]:
    """Every Python's standard library below ``root``: programs bring Pythons of their own, in folders of their own."""
    found = []
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if name not in _NO_PYTHON]
        if "os.py" in files or Path(folder).name.startswith("python3"):
            found.append(Path(folder))
    return tuple(found)


def _masks(names: tuple[str, ...], empty: str) -> list[str]:
    """Hide files and packages of every visible standard library, with their compiled forms; ``empty`` is a folder."""
    libraries = {Path(sysconfig.get_path("stdlib")), *_libraries("/usr"), *_libraries(sys.base_prefix)}
    argv: list[str] = []
    for library in sorted(libraries):
        for name in names:
            place = library / name
            if place.is_dir():
                argv += ["--ro-bind", empty, str(place)]
            elif place.is_file():
                compiled = sorted((place.parent / "__pycache__").glob(f"{place.stem}.*.pyc"))
                for path in (place, *compiled):
                    argv += ["--ro-bind", "/dev/null", str(path)]
    return argv
