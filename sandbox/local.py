"""A job under a supervisor on this machine: the common part of the process and bwrap sandboxes.

Covers: the supervisor and its result, the control group, the scratch directory, the outcome. Does not cover: isolation
of names, files and network; that is the command's.
"""

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
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sandbox import caches, cgroups, gpu, layout
from sandbox.collect import collect
from sandbox.layout import GB, INODES, MB
from sandbox.output import Output
from sandbox.processor import ProcessorTime
from sandbox.rmtree import remove_tree
from sandbox.types import Job, Outcome, Running, SandboxBroken

SUPERVISOR = Path(__file__).with_name("supervisor.py")
SHARED = Path("/dev/shm")  # in memory, for data that two processes exchange

_NOSUID, _NODEV, _NOEXEC, _DETACH = 2, 4, 8, 2  # flags of mount(2), and one of umount2(2)


class LocalSandbox(ABC):
    """A sandbox whose jobs run under a supervisor on this machine."""

    def start(self, job: Job) -> Running:
        layout.check_job(job)
        scratch = Path(tempfile.gettempdir()) / layout.job_name(job.owner)
        try:
            _make_folders(scratch)
            return self._start(job, scratch)
        except BaseException:
            remove_scratch(scratch)
            raise

    @abstractmethod
    def _start(self, job: Job, scratch: Path) -> Running:
        """Start a job that writes to the folders ``out`` and ``tmp`` in ``scratch``."""

    def sweep(self, owner: str) -> int:
        return cgroups.sweep(owner) + sweep_folders(owner)


class LocalRunning:
    """A job whose supervisor is a child of this process.

    Args:
        job: what runs.
        scratch: its folder, removed at the end.
        argv: what the supervisor executes.
        env: all its environment variables.
        cwd: its working directory.
        descriptors: inherited by the command, closed in this process.
        namespace: the command has its own process namespace, whose first process always stays behind.

    Raises:
        SandboxBroken: the host cannot start it.
    """

    def __init__(
        self,
        job: Job,
        scratch: Path,
        argv: Sequence[str],
        env: Mapping[str, str],
        cwd: str,
        descriptors: tuple[int, ...] = (),
        namespace: bool = False,
    ):
        self._job, self._scratch, self._namespace = job, scratch, namespace
        self._outcome: Outcome | None = None
        limits = job.limits
        self._output = Output(int(limits.output_mb * MB), job.log)
        self._gpu, self._processor = gpu.MemoryWatch(job.device, limits.vram_gb), ProcessorTime()
        try:
            self._group = cgroups.create(scratch.name, limits)
        except OSError as error:
            raise SandboxBroken(f"cannot make a control group: {error}") from error
        self._status, status = os.pipe()
        config = {
            "argv": list(argv),
            "env": dict(env),
            "cwd": cwd,
            "parent": os.getpid(),
            "status": status,
            "groups": [str(folder / "cgroup.procs") for folder in self._group.directories],
            "watch": "memory" not in cgroups.controllers(),
            "memory": int(limits.memory_gb * GB),
            "disk": int(limits.disk_gb * GB),
            "file": layout.largest_file(limits),
            "out": str(scratch / "out"),
        }
        self._began = time.monotonic()
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", str(SUPERVISOR), json.dumps(config)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=(status, *descriptors),
                start_new_session=True,
                env={"PATH": os.environ.get("PATH", "")},
            )
        except OSError as error:
            os.close(self._status)
            self._group.remove()
            raise SandboxBroken(f"cannot start the supervisor: {error}") from error
        finally:
            for descriptor in (status, *descriptors):
                os.close(descriptor)
        self._reader = threading.Thread(target=self._read_output, daemon=True)
        self._reader.start()
        self._gpu.follow(self._process.pid, self.kill)

    @property
    def processor_seconds(self) -> float:
        return self._processor.seconds(self._process.pid if self._process.poll() is None else None)

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
            if self._job.forgotten:
                caches.drop()
            self._output.check()
        return self._outcome

    def _read_output(self) -> None:
        assert self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        try:
            while data := os.read(descriptor, 1 << 16):
                self._output.feed(data)
        except OSError:  # the log's disk is full: the job must not block on a full pipe
            self.kill()
        finally:
            self._output.end()

    def _collect(self, seconds: float) -> Outcome:
        result = self._result()
        problems = [p for p in result["problems"] if not (self._namespace and p.startswith("left "))]
        problems += self._gpu.problems()
        peak = self._group.peak() or result["peak"]
        out_of_memory = result["memory"] or self._gpu.exceeded or self._group.oom_kills() > 0
        self._group.remove()
        out, target = self._scratch / "out", self._job.collect_to
        if out.is_mount() and (space := os.statvfs(out)).f_bavail * space.f_frsize < 1 << 16:
            problems.append(f"filled the {space.f_blocks * space.f_frsize / GB:.3g} GiB that it may write")
        try:
            found = collect(out, self._job.collect, target, problems) if target is not None else {}
        finally:
            remove_scratch(self._scratch)
        status = result["status"]
        if self._namespace and status >> 8 > 128:  # bubblewrap reports a signal as a shell does
            status = (status >> 8) - 128
        return self._output.outcome(
            status,
            seconds=seconds,
            peak=peak,
            out_of_memory=out_of_memory,
            peak_vram_gb=self._gpu.peak_gb,
            collected=found,
            problems=problems,
        )

    def _result(self) -> dict[str, Any]:
        """What the supervisor reports."""
        assert self._process.stdout is not None
        self._process.stdout.close()
        with os.fdopen(self._status, "rb") as pipe:
            data = pipe.read()
        try:
            result: dict[str, Any] = json.loads(data)
        except ValueError:  # nothing, or what a job without isolation wrote there
            result = {"status": 9, "peak": 0, "memory": False, "problems": ["the supervisor was killed"]}
        return result


def _make_folders(scratch: Path) -> None:
    try:
        for name in ("out", "tmp"):
            (scratch / name).mkdir(parents=True)
    except OSError as error:
        raise SandboxBroken(f"cannot make {scratch}: {error.strerror}; free some space") from error


def mount_memory(folder: Path, size: int, user: int) -> None:
    """Mount a file system in memory of ``size`` bytes at a folder, for a user; needs root. Raises SandboxBroken."""
    options = f"size={size},nr_inodes={INODES},mode=0700,uid={user},gid={user}"
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"tmpfs", os.fsencode(folder), b"tmpfs", _NOSUID | _NODEV | _NOEXEC, options.encode()):
        raise SandboxBroken(f"cannot mount memory at {folder}: {os.strerror(ctypes.get_errno())}")


def sweep_folders(owner: str) -> int:
    """Remove the temporary folders that dead processes of this owner left; their number."""
    found = (folder for place in (SHARED, Path(tempfile.gettempdir())) for folder in place.glob("overnight-*"))
    left = [folder for folder in found if layout.orphaned(folder.name, owner)]
    for folder in left:
        remove_scratch(folder)
    return len(left)


def remove_scratch(scratch: Path) -> None:
    """Unmount and remove the directory of one job."""
    if os.path.ismount(scratch / "out"):  # Path.is_mount raises for another user's folder
        ctypes.CDLL(None).umount2(os.fsencode(scratch / "out"), _DETACH)
    remove_tree(scratch)
