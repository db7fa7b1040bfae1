"""Namespaces by bubblewrap, as root or as an ordinary user.

Covers: no network; nothing of the host is visible but Python, the system's libraries and the job's mounts, all of it
read-only; the whole tree dies with the job; named files of the standard library are hidden; memory by a control
group, else by a watchdog that looks ten times a second; what it writes by a watchdog and a limit per file; processes by
a control group, or for an ordinary user by rlimit; system calls by seccomp.json, where the machine has libseccomp. When
root runs the session, the job is a user that nobody else is. Does not cover, against Docker: a watchdog is not a quota,
so that the disk may take more than its limit for a moment; of several GPUs the job sees all device files.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from sandbox import groups, layout, local, seccomp
from sandbox.layout import GB, INSIDE
from sandbox.types import Guarantee, Job, Running, SandboxUnavailable

_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
_FILES = ("/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/alternatives", "/etc/localtime")
_MEND = (
    "Install it (apt-get install bubblewrap), and allow user namespaces (sysctl kernel.unprivileged_userns_clone=1)."
)
# Setting the user clears all capabilities but the inheritable ones.
_BECOME = """
import ctypes, os, sys
user = int(sys.argv[1])
os.setgroups([])
os.setgid(user)
os.setuid(user)
ctypes.CDLL(None).capset((ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)())
os.execvp(sys.argv[2], sys.argv[2:])
"""


class BwrapSandbox:
    """Needs the program bwrap, and user namespaces."""

    name = "bwrap"

    def __init__(self) -> None:
        self._program = shutil.which("bwrap") or ""
        held = set(Guarantee) - {Guarantee.LIMITS_PROCESSES}
        if "pids" in groups.controllers() or os.geteuid() != 0:
            held.add(Guarantee.LIMITS_PROCESSES)
        self.guarantees = frozenset(held)

    def check(self) -> None:
        if not self._program:
            raise SandboxUnavailable(f"bubblewrap is not installed. {_MEND}")
        done = subprocess.run(
            [*self._namespaces(), *self._system(), "--", *_become(), "/bin/true"],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        if done.returncode:
            raise SandboxUnavailable(f"bubblewrap does not work here ({done.stderr.strip()[:200]}). {_MEND}")

    def start(self, job: Job) -> Running:
        layout.check_job(job)
        scratch = local.make_scratch(job)
        if not os.geteuid():
            os.chown(scratch / "out", layout.UNPRIVILEGED, layout.UNPRIVILEGED)
        places = {name: f"{INSIDE}/{name}" for name in job.mounts}
        places |= {"out": f"{INSIDE}/out", "python": sys.executable}
        env = layout.environment(job, places, "/tmp")
        size = str(int(min(job.limits.disk_gb, job.limits.memory_gb) * GB))
        argv = [*self._namespaces(), *self._system(), *_masks(job.masked), *_devices(job)]
        for folder in ("/tmp", "/dev/shm"):
            argv += ["--perms", "1777", "--size", size, "--tmpfs", folder]
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
        argv += ["--", *_become(), *layout.command(job, places)]
        command = local.Command(argv, {"PATH": layout.PATH}, "/", descriptors, namespace=True)
        return local.LocalRunning(job, command, scratch)

    def sweep(self, owner: str) -> int:
        return local.sweep(owner)

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
    def _system() -> list[str]:
        argv: list[str] = []
        for name in _SYSTEM:
            place = Path(name)
            if place.is_symlink():
                argv += ["--symlink", str(place.readlink()), name]
            elif place.is_dir():
                argv += ["--ro-bind", name, name]
        for name in _FILES:
            argv += ["--ro-bind-try", name, name]
        for prefix in dict.fromkeys((sys.base_prefix, sys.prefix)):
            if not prefix.startswith("/usr"):
                argv += [*_ancestors(prefix), "--ro-bind", prefix, prefix]
        return [*argv, "--proc", "/proc", "--dev", "/dev"]


def _ancestors(path: str) -> list[str]:
    """Make the folders above ``path`` such that every user may pass: bubblewrap would make them its own."""
    folders = [str(p) for p in reversed(Path(path).parents)][1:]
    return [word for folder in folders for word in ("--perms", "0755", "--dir", folder)]


def _become() -> list[str]:
    """The words before a command that make it another user's, when root runs the session."""
    if os.geteuid():
        return []
    return [sys.executable, "-I", "-S", "-c", _BECOME, str(layout.UNPRIVILEGED)]


def _filter() -> tuple[int, ...]:
    descriptor = seccomp.open_program()
    return () if descriptor is None else (descriptor,)


def _masks(names: tuple[str, ...]) -> list[str]:
    """Hide files and packages of every visible standard library, with their compiled forms."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    libraries = {Path(sys.base_prefix) / "lib" / version, *Path("/usr/lib").glob("python3*"),
                 *Path("/usr/local/lib").glob("python3*")}  # fmt: skip
    argv: list[str] = []
    for library in sorted(libraries):
        for name in names:
            place = library / name
            if place.is_dir():
                argv += ["--tmpfs", str(place)]
            elif place.is_file():
                compiled = sorted((place.parent / "__pycache__").glob(f"{place.stem}.*.pyc"))
                for path in (place, *compiled):
                    argv += ["--ro-bind", "/dev/null", str(path)]
    return argv


def _devices(job: Job) -> list[str]:
    if job.device.kind != "cuda":
        return []
    nodes = [str(p) for p in sorted(Path("/dev").glob("nvidia*"))]
    return [word for node in nodes for word in ("--dev-bind", node, node)]
