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
import sysconfig
from pathlib import Path

from sandbox import cgroups, gpu, layout, local, masks, seccomp, stdlib
from sandbox.layout import INSIDE
from sandbox.types import Guarantee, Job, Limits, Running, SandboxUnavailable

_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
# Device files that bwrap --dev binds from the host.
_NODES = tuple(f"/dev/{name}" for name in ("null", "zero", "full", "random", "urandom", "tty"))
_FILES = ("/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/alternatives", "/etc/localtime")
_FIX = (
    "Install it (apt-get install bubblewrap libseccomp2), and allow user namespaces "
    "(sysctl kernel.unprivileged_userns_clone=1)."
)
# Runs inside, before the job. Makes device files read-only mounts, so that their time stamps cannot be written (bwrap's
# --remount-ro would also disable the devices). Then gives up root and capabilities, limits processes, filters calls.
_BECOME = """
import ctypes, os, resource, sys
user, processes, code = (int(word) for word in sys.argv[1:4])
libc = ctypes.CDLL(None, use_errno=True)
def check(result):
    if result:
        sys.exit("cannot set up the sandbox: " + os.strerror(ctypes.get_errno()))
check(libc.unshare(0x20000))
for node in sys.argv[4].split(":"):
    kept = os.statvfs(node).f_flag
    flags = kept & 0xC0A | (0x200000 if kept & 0x1000 else 0) | 0x1021
    check(libc.mount(None, node.encode(), None, ctypes.c_ulong(flags), None))
if user:
    os.setgroups([])
    os.setgid(user)
    os.setuid(user)
check(libc.capset((ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()))
if processes:
    resource.setrlimit(resource.RLIMIT_NPROC, (processes, processes))
if code >= 0:
    with open(code, "rb") as file:
        program = file.read()
    class Program(ctypes.Structure):
        _fields_ = [("count", ctypes.c_ushort), ("code", ctypes.c_char_p)]
    check(libc.prctl(22, 2, ctypes.byref(Program(len(program) // 8, program))))
try:
    os.execvp(sys.argv[5], sys.argv[5:])
except OSError as error:
    sys.exit(f"cannot start {sys.argv[5]}: {error}")
"""


class BwrapSandbox(local.LocalSandbox):
    """Needs the program bwrap and user namespaces."""

    name = "bwrap"

    def __init__(self) -> None:
        self._program = shutil.which("bwrap") or ""
        held = set(Guarantee)
        if "pids" not in cgroups.controllers() and (os.geteuid() == 0 or not _counts_by_namespace()):
            held.discard(Guarantee.LIMITS_PROCESSES)
        if seccomp.load_library() is None:
            held.discard(Guarantee.ISOLATES_JOBS)
        self.guarantees = frozenset(held)

    def check(self) -> None:
        if not self._program:
            raise SandboxUnavailable(f"bubblewrap is not installed. {_FIX}")
        first = _become(0 if os.geteuid() else layout.job_user(), Limits(), [], None)
        words = [*self._namespaces(), *_system(size=1 << 20), "--", *first, "/bin/true"]
        done = subprocess.run(words, capture_output=True, text=True, timeout=60)
        if done.returncode:
            raise SandboxUnavailable(f"bubblewrap does not work here ({done.stderr.strip()[:200]}). {_FIX}")

    def _start(self, job: Job, scratch: Path) -> Running:
        places = {name: f"{INSIDE}/{name}" for name in job.mounts}
        places |= {"out": f"{INSIDE}/out", "python": job.python.path}
        size = layout.scratch_bytes(job)
        user = 0 if os.geteuid() else layout.job_user()
        if user:
            local.mount_memory(scratch / "out", size, user)
        argv = [*self._namespaces(), *_system(size, job.python.folders), *_hide(job, str(scratch / "tmp"))]
        nodes = [str(node) for node in gpu.nodes(job.device)]
        argv += [word for node in nodes for word in ("--dev-bind", node, node)]
        argv += _ancestors(places["out"])
        for name, mount in job.mounts.items():
            argv += ["--ro-bind" if mount.readonly else "--bind", str(mount.source.resolve()), places[name]]
            for file in mount.writable:
                argv += ["--bind", f"{mount.source.resolve()}/{file}", f"{places[name]}/{file}"]
        argv += ["--bind", str(scratch / "out"), places["out"], "--chdir", places[job.workdir], "--clearenv"]
        for name, value in layout.environment(job, places, "/tmp").items():
            argv += ["--setenv", name, value]
        argv += ["--remount-ro", "/dev", "--remount-ro", "/"]
        code = seccomp.open_program()
        argv += ["--", *_become(user, job.limits, nodes, code), *layout.command(job, places)]
        descriptors = () if code is None else (code,)
        return local.LocalRunning(job, scratch, argv, {"PATH": layout.PATH}, "/", descriptors, namespace=True)

    def _namespaces(self) -> list[str]:
        namespaces = ("ipc", "pid", "net", "uts", "cgroup-try")
        argv = [self._program, *(f"--unshare-{name}" for name in namespaces), "--die-with-parent", "--new-session"]
        argv += ["--hostname", "overnight", "--cap-drop", "ALL", "--cap-add", "CAP_SYS_ADMIN"]
        if os.geteuid():
            return [*argv, "--unshare-user", "--uid", "1000", "--gid", "1000"]
        # Root in a user namespace still owns root's files, such as /proc/sys/kernel/core_pattern. So there is none,
        # and the job changes its user first.
        return [*argv, "--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]


def _system(size: int, folders: tuple[str, ...] = ()) -> list[str]:
    """Mounts for the system, Python and ``folders``, and writable file systems in memory of ``size`` bytes each."""
    argv: list[str] = []
    for name in _SYSTEM:
        place = Path(name)
        if place.is_symlink():
            argv += ["--symlink", str(place.readlink()), name]
        elif place.is_dir():
            argv += ["--ro-bind", name, name]
    argv += _ancestors(_FILES[0])
    for name in _FILES:
        argv += ["--ro-bind-try", name, name]
    argv += ["--proc", "/proc", "--dev", "/dev"]
    for folder in ("/tmp", "/dev/shm"):
        argv += ["--perms", "1777", "--size", str(size), "--tmpfs", folder]
    for prefix in dict.fromkeys((sys.base_prefix, sys.prefix, *folders)):  # after /tmp, which may contain them
        if not prefix.startswith("/usr"):
            argv += [*_ancestors(prefix), "--ro-bind", prefix, prefix]
    return argv


def _ancestors(path: str) -> list[str]:
    """Make the folders above ``path`` accessible to all users; bubblewrap makes them private."""
    folders = [str(p) for p in reversed(Path(path).parents)][1:]
    return [word for folder in folders for word in ("--perms", "0755", "--dir", folder)]


def _become(user: int, limits: Limits, nodes: list[str], code: int | None) -> list[str]:
    """The command in front of the job's, which changes to ``user`` (0: unchanged).

    ``nodes``: device files besides ``_NODES``. ``code``: descriptor of the compiled filter, if there is one.
    """
    processes = limits.processes if os.geteuid() and _counts_by_namespace() else 0
    words = [str(number) for number in (user, processes, -1 if code is None else code)]
    return [sys.executable, "-I", "-S", "-c", _BECOME, *words, ":".join([*_NODES, *nodes])]


def _counts_by_namespace() -> bool:
    """Whether the kernel counts processes per user namespace (since 5.14), not all processes of the user."""
    return tuple(int(n) for n in re.findall(r"\d+", os.uname().release)[:2]) >= (5, 14)


def _hide(job: Job, empty: str) -> list[str]:
    """Mounts that hide named files and packages, counters, and sources of the standard library.

    ``empty``: an empty folder, which covers folders.
    """
    names, counters = job.masked, filter(os.path.exists, layout.COUNTERS if job.hides_counters else ())
    paths = [*masks.find(names, job.python.folders), *counters]
    argv = [word for path in paths for word in ("--ro-bind", empty if Path(path).is_dir() else "/dev/null", path)]
    if stdlib.SOURCES not in names:
        return argv
    place = stdlib.place()
    copied = layout.cached(f"{sys.version} {place} {names}", lambda folder: stdlib.copy(str(folder), names))
    inner = sysconfig.get_path("purelib")
    kept = ["--ro-bind", inner, inner] if Path(inner).is_relative_to(place) else []
    return ["--ro-bind", str(copied), place, *kept, *argv]
