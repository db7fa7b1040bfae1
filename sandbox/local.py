"""A job under a supervisor on this machine: what the process and bubblewrap sandboxes share."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sandbox import cgroups as groups
from sandbox import gpu
from sandbox.collect import collect
from sandbox.layout import GB, MB, job_name, orphaned
from sandbox.output import Output
from sandbox.rmtree import remove_tree
from sandbox.types import Job, Outcome, SandboxBroken

SUPERVISOR = Path(__file__).with_name("supervisor.py")

_NOSUID, _NODEV, _NOEXEC, _DETACH = 2, 4, 8, 2  # of mount(2) and umount2(2)
_INODES = 200_000


@dataclass(frozen=True)
class Command:
    """What the supervisor starts, fully spelled out."""

    argv: Sequence[str]
    env: Mapping[str, str]
    cwd: str
    descriptors: tuple[int, ...] = ()  # passed on, and closed here
    namespace: bool = False  # the kernel ends what is left behind, and there is always something: the namespace's init


class LocalRunning:
    """A job whose supervisor is a child of this process."""

    def __init__(self, job: Job, command: Command, scratch: Path):
        self._job, self._scratch, self._namespace = job, scratch, command.namespace
        self._outcome: Outcome | None = None
        limits = job.limits
        self._output = Output(int(limits.output_mb * MB), job.log)
        self._gpu = gpu.MemoryWatch(job.device, limits.vram_gb)
        try:
            self._group = groups.create(
                scratch.name, memory=int(limits.memory_gb * GB), processes=limits.processes, cpus=limits.cpus
            )
        except OSError as error:
            raise SandboxBroken(f"cannot make a control group: {error}") from error
        told, self._told = os.pipe()
        config = {
            "argv": list(command.argv),
            "env": dict(command.env),
            "cwd": command.cwd,
            "parent": os.getpid(),
            "status": self._told,
            "groups": [str(d / "cgroup.procs") for d in self._group.directories] if self._group else [],
            "watch": "memory" not in groups.controllers(),
            "memory": int(limits.memory_gb * GB),
            "disk": int(limits.disk_gb * GB),
            "file_bytes": int(limits.disk_gb * GB),
            "out": str(scratch / "out"),
        }
        self._began = time.monotonic()
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", str(SUPERVISOR), json.dumps(config)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=(self._told, *command.descriptors),
                start_new_session=True,
                env={"PATH": os.environ.get("PATH", "")},
            )
        except OSError as error:
            os.close(told)
            if self._group is not None:
                groups.remove(self._group)
            raise SandboxBroken(f"cannot start the supervisor: {error}") from error
        finally:
            for descriptor in (self._told, *command.descriptors):
                os.close(descriptor)
        self._status = told
        self._reader = threading.Thread(target=self._read_output, daemon=True)
        self._reader.start()
        self._gpu.follow(self._process.pid, self.kill)

    def read(self, timeout: float) -> list[str] | None:
        return self._output.read(timeout)

    def kill(self) -> None:
        if self._outcome is None and self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.terminate()

    def finish(self) -> Outcome:
        if self._outcome is None:
            self._process.wait()
            seconds = time.monotonic() - self._began
            self._reader.join(timeout=10)
            self._outcome = self._collect(seconds)
            self._output.check()
        return self._outcome

    def _read_output(self) -> None:
        assert self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        try:
            while data := os.read(descriptor, 1 << 16):
                self._output.feed(data)
        except OSError:  # the disk of the log is full, or the pipe is gone: the job must not hang on it
            self.kill()
        finally:
            self._output.end()

    def _collect(self, seconds: float) -> Outcome:
        job = self._job
        assert self._process.stdout is not None
        self._process.stdout.close()
        with os.fdopen(self._status, "rb") as pipe:
            data = pipe.read()
        try:
            told = json.loads(data)
        except ValueError:
            told = {"status": 9, "peak": 0, "memory": False, "problems": ["the supervisor was killed"]}
        problems: list[str] = [p for p in told["problems"] if not (self._namespace and p.startswith("left "))]
        problems += self._gpu.problems()
        peak, out_of_memory = told["peak"], bool(told["memory"]) or self._gpu.exceeded
        if self._group is not None:
            peak = max(_peak(self._group), 0) or peak
            out_of_memory |= _oom_kills(self._group) > 0
            groups.remove(self._group)
        found = {}
        out = self._scratch / "out"
        if out.is_mount() and (space := os.statvfs(out)).f_bavail * space.f_frsize < 1 << 16:
            problems.append(f"filled the {space.f_blocks * space.f_frsize / GB:.3g} GiB that it may write")
        try:
            if job.collect and job.collect_to is not None:
                job.collect_to.mkdir(parents=True, exist_ok=True)
                found = collect(out, job.collect, job.collect_to, problems)
        finally:
            remove_scratch(self._scratch)
        if self._output.truncated:
            problems.append(f"printed {self._output.dropped} bytes too many; dropped")
        status = told["status"]
        number = status & 0x7F
        code = status >> 8
        if self._namespace and not number and code > 128:  # bubblewrap reports a signal the way a shell does
            number = code - 128
        return Outcome(
            exit_code=None if number else code,
            signal=number or None,
            out_of_memory=out_of_memory,
            seconds=round(seconds, 3),
            peak_memory_gb=round(peak / 1e9, 3) if peak else None,
            peak_vram_gb=self._gpu.peak_gb,
            log_tail=self._output.tail(),
            output_truncated=self._output.truncated,
            collected=found,
            problems=tuple(problems),
        )


@contextlib.contextmanager
def scratch_for(job: Job) -> Iterator[Path]:
    """A private folder for one job, with its ``out``; its name tells whose it is. It stays unless the body fails."""
    scratch = _make_scratch(job)
    try:
        yield scratch
    except BaseException:
        remove_scratch(scratch)
        raise


def _make_scratch(job: Job) -> Path:
    scratch = Path(tempfile.gettempdir()) / job_name(job.owner)
    try:
        (scratch / "out").mkdir(parents=True)
        (scratch / "tmp").mkdir()
    except OSError as error:
        raise SandboxBroken(f"cannot make {scratch}: {error.strerror}; free some space") from error
    return scratch


def mount_memory(folder: Path, size: int, user: int) -> None:
    """Put memory of ``size`` bytes there that belongs to ``user``. Root can.

    Raises:
        SandboxBroken: the kernel does not let us.
    """
    options = f"size={size},nr_inodes={_INODES},mode=0700,uid={user},gid={user}"
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"tmpfs", os.fsencode(folder), b"tmpfs", _NOSUID | _NODEV | _NOEXEC, options.encode()):
        raise SandboxBroken(f"cannot mount memory at {folder}: {os.strerror(ctypes.get_errno())}")


def remove_scratch(scratch: Path) -> None:
    if (scratch / "out").is_mount():
        ctypes.CDLL(None).umount2(os.fsencode(scratch / "out"), _DETACH)
    remove_tree(scratch)


def sweep(owner: str) -> int:
    """Remove folders and control groups of sessions that are dead."""
    removed = groups.sweep(owner)
    for folder in Path(tempfile.gettempdir()).glob("overnight-*"):
        if orphaned(folder.name, owner):
            remove_scratch(folder)
            removed += 1
    return removed


def _peak(group: groups.Group) -> int:
    for directory in group.directories:
        for name in ("memory.max_usage_in_bytes", "memory.peak"):
            with contextlib.suppress(OSError, ValueError):
                return int((directory / name).read_text())
    return 0


def _oom_kills(group: groups.Group) -> int:
    if group.oom_file is None:
        return 0
    with contextlib.suppress(OSError, ValueError):
        for line in group.oom_file.read_text().splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return 0
