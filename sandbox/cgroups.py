"""Control groups (version 1 and 2) that limit a job's memory, processes and CPU time.

Covers: hard limits, enforced by the kernel, for root and for users with a delegated subtree. Does not cover: other
users. There ``controllers()`` is empty, and the sandboxes do not declare the guarantees that depend on it.
"""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from sandbox.layout import GB, job_name, orphaned
from sandbox.types import Limits

_NEEDED = ("memory", "pids", "cpu")


@dataclass(frozen=True)
class Group:
    """The control group of one job."""

    directories: tuple[Path, ...]  # version 1: one per controller; version 2: one

    def peak(self) -> int:
        """The largest memory use in bytes; 0 if the kernel does not report it."""
        return self._number("memory.max_usage_in_bytes") or self._number("memory.peak")

    def oom_kills(self) -> int:
        """How many processes the kernel killed because the memory limit was reached."""
        return self._number("memory.oom_control", "oom_kill ") or self._number("memory.events", "oom_kill ")

    def remove(self) -> None:
        """Kill the remaining processes and remove the group."""
        for directory in self.directories:
            _remove(directory)

    def _number(self, name: str, key: str = "") -> int:
        for directory in self.directories:
            with contextlib.suppress(OSError, ValueError):
                for line in (directory / name).read_text().splitlines():
                    if line.startswith(key):
                        return int(line[len(key) :])
        return 0


@functools.cache
def controllers() -> frozenset[str]:
    """Which of memory, pids and cpu can be limited on this machine. Tests once by making groups."""
    usable: set[str] = set()
    for controller, parent in _parents().items():
        with contextlib.suppress(OSError):
            _remove(_make(parent, job_name("trial"), controller, Limits(memory_gb=1.0, processes=64, cpus=1.0)))
            usable.add(controller)
    return frozenset(usable)


def create(name: str, limits: Limits) -> Group:
    """Make the group ``name`` of one job, with limits of memory (without swap), processes and CPU time.

    It has no directories where no controller is usable.

    Raises:
        OSError: a usable controller failed.
    """
    made: dict[Path, None] = {}
    try:
        for controller in sorted(controllers() if limits.cpus else controllers() - {"cpu"}):
            parent = _parents()[controller]
            made[_make(parent, name, controller, limits)] = None
    except OSError:
        for directory in made:
            _remove(directory)
        raise
    return Group(tuple(made))


def sweep(owner: str) -> int:
    """Kill and remove the groups that dead processes of this owner left. Returns their number."""
    left = [d for p in set(_parents().values()) for d in p.glob("overnight-*") if orphaned(d.name, owner)]
    Group(tuple(left)).remove()
    return len(left)


def _make(parent: Path, name: str, controller: str, limits: Limits) -> Path:
    directory = parent / name
    directory.mkdir(exist_ok=True)
    try:
        for file, value in _settings(directory, controller, limits):
            file.write_text(value)
    except OSError:
        _remove(directory)
        raise
    return directory


def _settings(directory: Path, controller: str, limits: Limits) -> list[tuple[Path, str]]:
    """The control files of version 1 or 2 that the kernel has, and their values. Raises OSError if it has none."""
    memory, quota = str(int(limits.memory_gb * GB)), int((limits.cpus or 1.0) * 100_000)
    values = {
        "memory": {
            "memory.limit_in_bytes": memory, "memory.memsw.limit_in_bytes": memory,
            "memory.max": memory, "memory.swap.max": "0", "memory.oom.group": "1",
        },
        "pids": {"pids.max": str(limits.processes)},
        "cpu": {"cpu.cfs_period_us": "100000", "cpu.cfs_quota_us": str(quota), "cpu.max": f"{quota} 100000"},
    }[controller]  # fmt: skip
    found = [(directory / file, value) for file, value in values.items() if (directory / file).exists()]
    if not found:
        raise OSError(f"{directory} has no limits of {controller}")
    return found


def _remove(directory: Path) -> None:
    """Kill the processes of a group and remove it; for 3 s, since a killed process takes a moment to end."""
    for _ in range(150):
        with contextlib.suppress(OSError):
            for pid in (directory / "cgroup.procs").read_text().split():
                with contextlib.suppress(OSError):
                    os.kill(int(pid), signal.SIGKILL)
        try:
            directory.rmdir()
        except FileNotFoundError:
            return
        except OSError:
            time.sleep(0.02)
        else:
            return


@functools.cache
def _parents() -> dict[str, Path]:
    """For each controller, the directory in which this process may make groups."""
    try:
        memberships = Path("/proc/self/cgroup").read_text().splitlines()
        mounts = [line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    except OSError:
        return {}
    found: dict[str, Path] = {}
    for line in memberships:
        _, names, path = line.split(":", 2)
        for fields in mounts:
            root, point, kind, options = fields[3], fields[4], fields[-3], fields[-1].split(",")
            wanted = [c for c in _NEEDED if c in names.split(",") and c in options] if kind == "cgroup" else []
            for controller in wanted:
                found.setdefault(controller, _inside(point, root, path))
            if kind == "cgroup2" and not names:
                for controller, parent in _unified(_inside(point, root, path), Path(point)).items():
                    found.setdefault(controller, parent)
    return found


def _inside(point: str, root: str, path: str) -> Path:
    """The directory of group ``path`` where the subtree ``root`` is mounted at ``point``."""
    return Path(point) / os.path.relpath(path, root) if path.startswith(root) else Path(point)


def _unified(own: Path, top: Path) -> dict[str, Path]:
    """Version 2: the nearest group at or above this process's that delegates controllers to its children."""
    for parent in (own, *own.parents):
        try:
            passed = (parent / "cgroup.subtree_control").read_text().split()
        except OSError:
            break
        if "memory" in passed and "pids" in passed and os.access(parent, os.W_OK):
            return {c: parent for c in _NEEDED if c in passed}
        if parent == top:
            break
    return {}
