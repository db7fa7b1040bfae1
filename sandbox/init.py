"""The first process of a container: starts one job, relays what it prints, ends all of it, and says how it went.

    python -I -S -c SOURCE-OF-THIS-FILE CONFIG-AS-JSON

As process 1 it inherits every daemon, and the kernel lets nobody inside the container kill it, stop it, or (it is not
dumpable) trace it. It is the only one to hold the container's output, on which it sends frames: a kind (one byte), a
length (four bytes, big-endian), and that many bytes. Kinds: ``O`` output of the job, ``T`` the end of an output that
was cut, ``E`` the report. After the report it lives on, so that the outputs in memory can be read. Its input is the
session: one byte there ends the job; its end (the session has died, or has what it wanted) ends the container.
"""

# Every import costs each job its time: no pathlib here, no contextlib.
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
FILES = 65536  # that one process may have open
CGROUP = "/sys/fs/cgroup"


def send(kind: bytes, data: bytes) -> None:
    frame = struct.pack(">cI", kind, len(data)) + data
    while frame:
        frame = frame[os.write(1, frame) :]


class Relay:
    """Passes the job's output on up to ``limit`` bytes; of the rest it keeps the end."""

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
    """Fork the job with ``output`` as its stdout and stderr,."""
    child = os.fork()
    if child:
        return child
    try:
        os.setsid()
        ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 1)  # else its own /proc files are closed to it
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write("1000")  # when memory runs out, the job goes before this process
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGPIPE, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        files = FILES if most == resource.RLIM_INFINITY else min(most, FILES)
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
        here = {"{python}": sys.executable}
        argv = [replace(word, here) for word in config["argv"]]
        os.chdir(config["cwd"])
        os.execvpe(argv[0], argv, {name: replace(value, here) for name, value in config["env"].items()})
    except OSError as error:
        os.write(2, f"cannot start {config['argv'][0]}: {error}\n".encode())
    os._exit(127)


def replace(text: str, places: dict[str, str]) -> str:
    for name, place in places.items():
        text = text.replace(name, place)
    return text


def others() -> int:
    """Processes besides this one that still run."""
    found = 0
    for name in os.listdir("/proc"):
        if name.isdigit() and name != "1":
            try:
                with open(f"/proc/{name}/stat") as file:
                    found += file.read().rpartition(")")[2].split()[0] not in "ZX"
            except OSError:
                continue
    return found


def kill_all(seconds: float) -> bool:
    """Kill until no process is left; whether that came true in time."""
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
    """Relay until the job ends or is to end. Returns its wait status (None: end it) and whether the session is gone."""
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
                    poll.unregister(output)  # it has closed its output, and may run on
            else:
                while True:
                    try:
                        pid, status = os.waitpid(-1, os.WNOHANG)
                    except ChildProcessError:
                        break
                    if pid == child:
                        return status, False
                    if pid == 0:
                        break


def drain(output: int, relay: Relay) -> None:
    """What is still in the pipe; whoever could write to it is dead."""
    os.set_blocking(output, False)
    try:
        while data := os.read(output, 1 << 16):
            relay.take(data)
    except BlockingIOError:
        pass


def number(name: str, key: str = "") -> int:
    """A number of the container's memory control group, version 2 or 1; 0 if it does not have it."""
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
    """Which of the wanted files can be read; what is odd about the others."""
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
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # which the kernel keeps from process 1; Python's handler would end it
    output, writer = os.pipe()
    child = start(config, writer)
    os.close(writer)
    relay = Relay(config["output"])
    status, gone = follow(child, output, wake, relay)
    problems: list[str] = []
    if status is not None and (left := others()):
        problems.append(f"left {left} processes behind; killed")
    if not kill_all(10) or gone:
        os._exit(1)  # the end of process 1 is the end of everything in the container
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
