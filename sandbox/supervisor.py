"""Starts one job, watches it, and leaves no process of it behind. Runs on its own: standard library, no package.

    python -I -S supervisor.py CONFIG-AS-JSON

It is the subreaper of the job: daemons that detach themselves become its children, so it finds and kills them all. It
ends by SIGTERM, or when it sees that its parent has died (the parent's thread that started it may end earlier), and
takes the job with it. The result goes to file descriptor ``status``.
"""

# Every import costs each job its time: no pathlib here.
# ruff: noqa: PTH115, PTH116, PTH208

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
SMALLEST = 4096  # bytes that any file counts for: its entry takes room, too
UNCOUNTABLE = sys.maxsize
LOOK_EVERY = 0.1  # seconds between looks at memory and disk


def descendants(root: int | None = None) -> list[int]:
    """All processes below ``root``, which is this one unless it is named."""
    parents: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat") as file:
                    fields = file.read().rpartition(")")[2].split()
            except OSError:
                continue
            parents.setdefault(int(fields[1]), []).append(int(name))
    found, todo = [], [root or os.getpid()]
    while todo:
        children = parents.get(todo.pop(), [])
        found += children
        todo += children
    return found


def resident(pids: list[int]) -> int:
    """Bytes of memory that these processes hold: their own, their share of what is shared, and files without a name in
    memory (memfd), which nobody may have mapped. Pages of the system's files do not count."""
    total = sum(_memory(pid) for pid in pids)
    return total + sum(size for _, name, size in nameless(pids) if name.startswith("/memfd:"))


def _memory(pid: int) -> int:
    """Of one process. Where the kernel does not tell its share (before 5.4, or since it is closed to us): all of it."""
    for file, names in (("smaps_rollup", ("Pss_Anon", "Pss_Shmem")), ("status", ("RssAnon", "RssShmem"))):
        try:
            with open(f"/proc/{pid}/{file}") as lines:
                found = [int(line.split()[1]) * 1024 for line in lines if line.split(":")[0] in names]
        except OSError:
            continue
        if found:
            return sum(found)
    return 0


def nameless(pids: list[int]) -> list[tuple[int, str, int]]:
    """Device, old name and bytes of every file without a name that these processes hold open, each once."""
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
    """Bytes of everything in a folder; UNCOUNTABLE for what is closed to us, or nested too deep to have a name."""
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


def deleted_usage(folder: str) -> int:
    """Bytes of the files without a name that processes of the job hold open on the folder's disk."""
    device = os.stat(folder).st_dev
    return sum(size for where, _, size in nameless(descendants()) if where == device)


def reap(child: int) -> int | None:
    """Take note of all children that have ended, daemons of the job among them; the wait status of ``child``."""
    while True:
        pid, code = os.waitpid(-1, os.WNOHANG)
        if pid in (0, child):
            return code if pid else None


def kill_all() -> None:
    """Kill until nothing is left: a process that forks while it is killed is found in the next round."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        pids = descendants()
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except OSError:
                continue
        while True:
            try:
                if os.waitpid(-1, os.WNOHANG)[0] == 0:
                    break
            except ChildProcessError:
                return
        time.sleep(0.005)


def prepare_child(config: dict[str, Any]) -> None:
    os.setsid()
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    for file in config["groups"]:
        with open(file, "w") as group:
            group.write(str(os.getpid()))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    limit = config["file_bytes"]
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGPIPE, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)


def wake_by_signals() -> int:
    """A descriptor that can be read from when a signal has come."""
    wake, waker = os.pipe()
    for descriptor in (wake, waker):
        os.set_blocking(descriptor, False)
    signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    return wake


def main() -> int:
    config = json.loads(sys.argv[1])
    os.set_inheritable(config["status"], False)  # it is not the job's to write to
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
    wake = wake_by_signals()
    stop: list[int] = []
    signal.signal(signal.SIGTERM, lambda *_: stop.append(1))
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the session to decide on
    child = os.fork()
    if child == 0:
        try:
            prepare_child(config)
            os.chdir(config["cwd"])
            os.execvpe(config["argv"][0], config["argv"], config["env"])
        except OSError as error:
            os.write(2, f"cannot start {config['argv'][0]}: {error}\n".encode())
        os._exit(127)
    status, peak, problems, memory = None, 0, [], False
    look_at = time.monotonic()
    while not stop and os.getppid() == config["parent"]:
        status = reap(child)
        if status is not None:
            break
        if time.monotonic() >= look_at:
            held = resident(descendants()) if config["watch"] else 0
            peak = max(peak, held)
            if held > config["memory"]:
                memory = True
                problems.append(f"used more than {config['memory'] / 2**30:.3g} GiB of memory")
                break
            written = disk_usage(config["out"])
            if written == UNCOUNTABLE:
                problems.append("made folders that nobody can look into")
                break
            if written + deleted_usage(config["out"]) > config["disk"]:
                problems.append(f"wrote more than {config['disk'] / 2**30:.3g} GiB")
                break
            look_at = time.monotonic() + LOOK_EVERY
        if select.select([wake], [], [], LOOK_EVERY)[0]:
            os.read(wake, 4096)
    left = len(descendants()) - (status is None)
    if status is not None and left > 0:
        problems.append(f"left {left} processes behind; killed")
    kill_all()
    if status is None:
        status = signal.SIGKILL
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    result = {"status": status, "peak": max(peak, usage.ru_maxrss * 1024), "memory": memory, "problems": problems}
    os.write(config["status"], json.dumps(result).encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
