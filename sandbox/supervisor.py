"""Starts one job, watches it, and kills all its processes at the end. A separate process: standard library only.

    python -I -S supervisor.py CONFIG-AS-JSON

As a subreaper it becomes the parent of daemons that detach themselves, so it finds and kills all processes. It ends on
SIGTERM, or when its parent process has died, and kills the job first. It writes the result to descriptor ``status``.

Covers: processes; memory (without a control group) and disk, sampled ten times a second. Does not cover: a sampled
limit can be exceeded for a moment; files in the job's private /tmp and /dev/shm have fixed sizes instead.
"""

# Imports delay the start of every job: no pathlib here.
# ruff: noqa: PTH112, PTH115, PTH116, PTH208

from __future__ import annotations

import ctypes
import json
import os
import resource
import select
import signal
import sys
import time
from typing import Any

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
SMALLEST = 4096  # bytes counted for any file: its directory entry needs space too
UNCOUNTABLE = sys.maxsize
HAS_PROC = os.path.isdir("/proc/self")  # not on macOS
SAMPLE_SECONDS = 0.1 if HAS_PROC else 1.0  # between samples of memory and disk; ps takes longer
MAXRSS_UNIT = 1 if sys.platform == "darwin" else 1024  # bytes of ru_maxrss


def prctl(option: int, value: int) -> None:
    """Set an attribute of this process, on Linux. Elsewhere there is none, and daemons can outlive their job."""
    if (call := getattr(ctypes.CDLL(None), "prctl", None)) is not None:
        call(option, value)


def descendants(root: int | None = None) -> list[int]:
    """All processes below ``root``, by default below this process."""
    parents: dict[int, list[int]] = {}
    for pid, parent in _parents() if HAS_PROC else [row[:2] for row in _listed()]:
        parents.setdefault(parent, []).append(pid)
    found, todo = [], [root or os.getpid()]
    while todo:
        children = parents.get(todo.pop(), [])
        found += children
        todo += children
    return found


def _parents() -> list[tuple[int, int]]:
    """Each process of this machine with its parent."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat") as file:
                    found.append((int(name), int(file.read().rpartition(")")[2].split()[1])))
            except OSError:
                continue
    return found


def _listed() -> list[tuple[int, int, int]]:
    """Each process with its parent and its bytes of memory, as ps lists them; ps itself is left out."""
    reader, writer = os.pipe()
    words = ["ps", "-A", "-o", "pid=", "-o", "ppid=", "-o", "rss="]
    lister = os.posix_spawnp("ps", words, os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, writer, 1)])
    os.close(writer)
    with open(reader) as lines:
        rows = [tuple(map(int, line.split())) for line in lines]
    os.waitpid(lister, 0)
    return [(pid, parent, kilobytes * 1024) for pid, parent, kilobytes in rows if pid != lister]


def resident(pids: list[int]) -> int:
    """Bytes of memory of these processes: private, their share of shared memory, and unlinked files in memory (memfd).

    Pages of files on disk do not count.
    """
    if not HAS_PROC:
        return sum(size for pid, _, size in _listed() if pid in pids)
    total = sum(_memory(pid) for pid in pids)
    return total + sum(size for _, name, size in unlinked(pids) if name.startswith("/memfd:"))


def _memory(pid: int) -> int:
    """Bytes of one process. Shared memory counts fully where smaps_rollup is missing (before 5.4) or not readable."""
    for file, names in (("smaps_rollup", ("Pss_Anon", "Pss_Shmem")), ("status", ("RssAnon", "RssShmem"))):
        try:
            with open(f"/proc/{pid}/{file}") as lines:
                found = [int(line.split()[1]) * 1024 for line in lines if line.split(":")[0] in names]
        except OSError:
            continue
        if found:
            return sum(found)
    return 0


def unlinked(pids: list[int]) -> list[tuple[int, str, int]]:
    """Device, former name and bytes of each unlinked file that these processes hold open, each once."""
    found: dict[tuple[int, int], tuple[int, str, int]] = {}
    for pid in pids:
        try:
            numbers = os.listdir(f"/proc/{pid}/fd")
        except OSError:
            continue
        for number in numbers:
            place = f"/proc/{pid}/fd/{number}"
            try:
                facts = os.stat(place)
                if facts.st_nlink == 0:
                    found[facts.st_dev, facts.st_ino] = facts.st_dev, os.readlink(place), facts.st_blocks * 512
            except OSError:
                continue
    return list(found.values())


def disk_usage(folder: str) -> int:
    """Bytes of all files below a folder; UNCOUNTABLE if a folder is not readable or nested too deep for a path."""
    total, todo = 0, [folder]
    while todo:
        try:
            with os.scandir(todo.pop()) as entries:
                for entry in entries:
                    try:
                        total += max(entry.stat(follow_symlinks=False).st_blocks * 512, SMALLEST)
                    except FileNotFoundError:
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        todo.append(entry.path)
        except FileNotFoundError:
            continue
        except OSError:
            return UNCOUNTABLE
    return total


def reap(child: int) -> int | None:
    """Reap ended children, daemons of the job among them. Returns the wait status of ``child`` once it has ended."""
    while True:
        pid, code = os.waitpid(-1, os.WNOHANG)
        if pid in (0, child):
            return code if pid else None


def kill_all() -> None:
    """Kill all descendants, repeatedly: a process may fork while it is killed."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        for pid in descendants():
            try:
                os.kill(pid, signal.SIGKILL)
            except OSError:
                continue
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        time.sleep(0.005)


class Signals:
    """This process becomes the subreaper of its descendants, and signals wake it.

    SIGINT is ignored: on Ctrl-C the parent decides.
    """

    def __init__(self) -> None:
        prctl(PR_SET_CHILD_SUBREAPER, 1)
        self.terminated = False
        self._wake, waker = os.pipe()
        for descriptor in (self._wake, waker):
            os.set_blocking(descriptor, False)
        signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, self._terminate)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    def _terminate(self, *_: object) -> None:
        self.terminated = True

    def wait(self, seconds: float) -> None:
        """Wait until a signal arrives, at most ``seconds``."""
        if select.select([self._wake], [], [], seconds)[0]:
            os.read(self._wake, 4096)


def _start(config: dict[str, Any]) -> int:
    """Fork and execute the job. Returns its process id."""
    child = os.fork()
    if child:
        return child
    try:
        os.setsid()
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        for file in config["groups"]:
            with open(file, "w") as group:
                group.write(str(os.getpid()))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (config["file"], config["file"]))
        empty, writer = os.pipe()  # not /dev/null: /proc/self/fd/0 would lead to the host's device file
        os.close(writer)
        os.dup2(empty, 0)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGPIPE, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        os.chdir(config["cwd"])
        os.execvpe(config["argv"][0], config["argv"], config["env"])
    except OSError as error:
        os.write(2, f"cannot start {config['argv'][0]}: {error}\n".encode())
    os._exit(127)


class Watch:
    """Samples the memory and disk of the job."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.config, self.peak, self.out_of_memory, self._next = config, 0, False, time.monotonic()

    def problem(self) -> str:
        """The limit that the job exceeds, in words; empty if none. Samples at most every ``SAMPLE_SECONDS``."""
        if time.monotonic() < self._next:
            return ""
        memory, disk, out = self.config["memory"], self.config["disk"], self.config["out"]
        pids = descendants()
        held = resident(pids) if self.config["watch"] else 0
        self.peak = max(self.peak, held)
        if held > memory:
            self.out_of_memory = True
            return f"used more than {memory / 2**30:.3g} GiB of memory"
        written = disk_usage(out)
        if written == UNCOUNTABLE:
            return "made folders that cannot be read"
        device = os.stat(out).st_dev
        if written + sum(size for where, _, size in unlinked(pids) if where == device) > disk:
            return f"wrote more than {disk / 2**30:.3g} GiB"
        self._next = time.monotonic() + SAMPLE_SECONDS
        return ""


def main() -> int:
    config = json.loads(sys.argv[1])
    os.set_inheritable(config["status"], False)  # the job must not write the result
    signals = Signals()
    child = _start(config)
    watch, problems = Watch(config), []
    status = None
    # getppid: PR_SET_PDEATHSIG would fire when the parent's starting thread ends, not the parent.
    while not signals.terminated and os.getppid() == config["parent"]:
        status = reap(child)
        if status is not None:
            break
        if problem := watch.problem():
            problems.append(problem)
            break
        signals.wait(SAMPLE_SECONDS)
    left = len(descendants()) - (status is None)
    if status is not None and left > 0:
        problems.append(f"left {left} processes behind; killed")
    kill_all()
    result = {
        "status": signal.SIGKILL if status is None else status,
        "peak": max(watch.peak, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * MAXRSS_UNIT),
        "memory": watch.out_of_memory,
        "problems": problems,
    }
    os.write(config["status"], json.dumps(result).encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
