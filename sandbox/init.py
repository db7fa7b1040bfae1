"""Process 1 of a container: starts one job, relays its output, kills all processes, reports. Standard library only.

    python -I -S -c SOURCE-OF-THIS-FILE CONFIG-AS-JSON

As process 1 it becomes the parent of daemons. The kernel protects it from signals inside the container, and since it
is not dumpable, from tracing. Only this process can write to the container's output. It sends frames there: kind (one
byte), length (four bytes, big-endian), data. Kinds: ``O`` output of the job, ``T`` tail of an output that was cut,
``E`` the report. After the report it waits, so that the engine can read the outputs in memory. Its input belongs to
the session: one byte kills the job; the end of input (the session has ended or has the outputs) ends the container.
"""

# Imports delay the start of every job: no pathlib and no contextlib here.
# ruff: noqa: PTH118, PTH208, SIM105

from __future__ import annotations

import ctypes
import json
import os
import resource
import select
import signal
import stat
import struct
import sys
import time
from typing import Any

PR_SET_DUMPABLE = 4
TAIL_BYTES = 16 * 1024
FILES = 65536  # open files per process
CGROUP = "/sys/fs/cgroup"


def send(kind: bytes, data: bytes) -> None:
    frame = struct.pack(">cI", kind, len(data)) + data
    while frame:
        frame = frame[os.write(1, frame) :]


class Relay:
    """Forwards the first ``limit`` bytes of the job's output and keeps the tail of the rest."""

    def __init__(self, limit: int) -> None:
        self.left, self.dropped, self.tail = limit, 0, b""

    def take(self, data: bytes) -> None:
        kept, rest = data[: self.left], data[self.left :]
        if kept:
            self.left -= len(kept)
            send(b"O", kept)
        if rest:
            self.dropped += len(rest)
            self.tail = (self.tail + rest)[-TAIL_BYTES:]


def start(config: dict[str, Any], output: int) -> int:
    """Fork and execute the job with ``output`` as its stdout and stderr. Returns its process id."""
    child = os.fork()
    if child:
        return child
    try:
        os.setsid()
        ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 1)  # otherwise the job cannot read its own /proc files
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write("1000")  # out of memory: the kernel kills the job before this process
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGPIPE, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        files = FILES if most == resource.RLIM_INFINITY else min(most, FILES)
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
        argv = [word.replace("{python}", sys.executable) for word in config["argv"]]
        env = {name: value.replace("{python}", sys.executable) for name, value in config["env"].items()}
        os.chdir(config["cwd"])
        os.execvpe(argv[0], argv, env)
    except OSError as error:
        os.write(2, f"cannot start {config['argv'][0]}: {error}\n".encode())
    os._exit(127)


def others() -> int:
    """How many other processes still run."""
    found = -1  # this process
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/stat") as file:
                found += file.read().rpartition(")")[2].split()[0] not in "ZX"
        except OSError:
            continue
    return found


def kill_all(seconds: float) -> bool:
    """Kill until no process is left. Returns whether that succeeded within ``seconds``."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            os.kill(-1, signal.SIGKILL)
        except OSError:
            pass
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return True
        time.sleep(0.002)
    return False


def follow(child: int, output: int, wake: int, relay: Relay) -> tuple[int | None, bool]:
    """Relay output until the job ends. Returns its wait status (None: kill it), and whether the session has ended."""
    poll = select.poll()
    for descriptor in (0, output, wake):
        poll.register(descriptor, select.POLLIN)
    while True:
        for descriptor, _ in poll.poll():
            data = os.read(descriptor, 1 << 16)
            if descriptor == 0:
                return None, not data
            if descriptor == output:
                relay.take(data)
                if not data:
                    poll.unregister(output)  # the job closed its output and may continue
            elif descriptor == wake and (status := reap(child)) is not None:
                return status, False


def reap(child: int) -> int | None:
    """Reap ended processes, daemons of the job among them. Returns the wait status of ``child`` once it has ended."""
    while True:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid in (0, child):
            return status if pid else None


def drain(output: int, relay: Relay) -> None:
    """Relay what is left in the pipe; without waiting, since a descriptor in an unread message can keep it open."""
    os.set_blocking(output, False)
    try:
        while data := os.read(output, 1 << 16):
            relay.take(data)
    except BlockingIOError:
        pass


def number(name: str, key: str = "") -> int:
    """A number of the container's memory control group, version 2 or 1; 0 if the kernel does not report it."""
    for folder in (CGROUP, f"{CGROUP}/memory"):
        try:
            with open(f"{folder}/{name}") as file:
                for line in file:
                    if line.startswith(key):
                        return int(line[len(key) :])
        except (OSError, ValueError):
            continue
    return 0


def outputs(folder: str, wanted: dict[str, int], problems: list[str]) -> list[str]:
    """The wanted files that can be read; the others are reported."""
    found = []
    for name, limit in wanted.items():
        try:
            facts = os.lstat(os.path.join(folder, name))
        except OSError:
            continue
        if stat.S_ISLNK(facts.st_mode):
            problems.append(f"{name}: a symbolic link; dropped")
        elif not stat.S_ISREG(facts.st_mode):
            problems.append(f"{name}: no regular file; dropped")
        elif facts.st_nlink != 1:
            problems.append(f"{name}: a hard link; dropped")
        elif facts.st_size > limit:
            problems.append(f"{name}: {facts.st_size} bytes, at most {limit} are taken; dropped")
        else:
            found.append(name)
    return found


def main() -> None:
    config = json.loads(sys.argv[1])
    ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0)
    wake, waker = os.pipe()
    for descriptor in (wake, waker):
        os.set_blocking(descriptor, False)
    signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # the kernel does not deliver SIGINT to process 1 then
    output, writer = os.pipe()
    child = start(config, writer)
    os.close(writer)
    relay = Relay(config["output"])
    status, gone = follow(child, output, wake, relay)
    problems: list[str] = []
    if status is not None and (left := others()) > 0:
        problems.append(f"left {left} processes behind; killed")
    if not kill_all(10) or gone:
        os._exit(1)  # the end of process 1 ends the container
    drain(output, relay)
    if relay.dropped:
        send(b"T", relay.tail)
    space = os.statvfs(config["out"])
    if space.f_bavail * space.f_frsize < 1 << 16 or space.f_ffree == 0:
        problems.append(f"filled the {space.f_blocks * space.f_frsize / 2**30:.3g} GiB that it may write")
    report = {
        "status": signal.SIGKILL if status is None else status,
        "peak": number("memory.peak") or number("memory.max_usage_in_bytes"),
        "oom": number("memory.events", "oom_kill ") or number("memory.oom_control", "oom_kill "),
        "dropped": relay.dropped,
        "found": outputs(config["out"], config["wanted"], problems),
        "problems": problems,
    }
    send(b"E", json.dumps(report).encode())
    while os.read(0, 4096):
        pass


if __name__ == "__main__":
    main()
