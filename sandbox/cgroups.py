"""Control groups (version 1 and 2) that bound a job's memory, processes and processor time.

They can be made by root, and by a user to whom a subtree was delegated. Where they cannot, ``controllers()`` is empty
and the sandboxes do not declare what they would need them for.
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

_NEEDED = ("memory", "pids", "cpu")


@dataclass(frozen=True)
class Group:
    """The directories of one job's group: one per controller in version 1, one in all in version 2."""

    directories: tuple[Path, ...]
    oom_file: Path | None  # has a line ``oom_kill N``


@functools.cache
def controllers() -> frozenset[str]:
    """Which of memory, pids and cpu can be limited here. Tried once, by making a group."""
    usable: set[str] = set()
    for controller, parent in _parents().items():
        try:
            _remove(_make(parent, job_name("trial"), controller, memory=GB, processes=64, cpus=1.0))
        except OSError:
            continue
        usable.add(controller)
    return frozenset(usable)


def create(name: str, *, memory: int, processes: int, cpus: float | None) -> Group | None:
    """A group for one job; ``memory`` in bytes, swap excluded. None where none can be made.

    Raises:
        OSError: it could be made a moment ago and cannot now.
    """
    usable = controllers() if cpus else controllers() - {"cpu"}
    made: list[Path] = []
    try:
        for controller in sorted(usable):
            directory = _make(_parents()[controller], name, controller, memory=memory, processes=processes, cpus=cpus)
            if directory not in made:
                made.append(directory)
    except OSError:
        for directory in made:
            _remove(directory)
        raise
    oom = [d / f for d in made for f in ("memory.oom_control", "memory.events") if (d / f).exists()]
    return Group(tuple(made), oom[0] if oom else None) if made else None


def remove(group: Group) -> None:
    """Kill what is left in a group, and remove it."""
    for directory in group.directories:
        _empty(directory)
        _remove(directory)


def sweep(owner: str) -> int:
    """Kill and remove the groups that dead processes of this owner left."""
    removed = 0
    for parent in set(_parents().values()):
        for directory in parent.glob("overnight-*"):
            if orphaned(directory.name, owner):
                _empty(directory)
                _remove(directory)
                removed += 1
    return removed


def _make(parent: Path, name: str, controller: str, *, memory: int, processes: int, cpus: float | None) -> Path:
    directory = parent / name
    directory.mkdir(exist_ok=True)
    try:
        for file, value in _settings(directory, controller, memory, processes, cpus):
            (directory / file).write_text(value)
    except OSError:
        _remove(directory)
        raise
    return directory


def _settings(
    directory: Path, controller: str, memory: int, processes: int, cpus: float | None
) -> list[tuple[str, str]]:
    """What to write where. Swap settings are left out where the kernel does not have them."""
    if controller == "pids":
        return [("pids.max", str(processes))]
    if controller == "cpu":
        quota = int((cpus or 1.0) * 100_000)
        one = [("cpu.cfs_period_us", "100000"), ("cpu.cfs_quota_us", str(quota))]
        return one if (directory / "cpu.cfs_quota_us").exists() else [("cpu.max", f"{quota} 100000")]
    if (directory / "memory.limit_in_bytes").exists():
        settings = [("memory.limit_in_bytes", str(memory)), ("memory.memsw.limit_in_bytes", str(memory))]
    else:
        settings = [("memory.max", str(memory)), ("memory.swap.max", "0"), ("memory.oom.group", "1")]
    return [settings[0]] + [(file, value) for file, value in settings[1:] if (directory / file).exists()]


def _remove(directory: Path) -> None:
    for _ in range(50):
        try:
            directory.rmdir()
        except FileNotFoundError:
            return
        except OSError:
            time.sleep(0.02)  # the last process is still on its way out
        else:
            return


def _empty(directory: Path) -> None:
    for _ in range(100):
        try:
            members = (directory / "cgroup.procs").read_text().split()
        except OSError:
            return
        if not members:
            return
        for pid in members:
            with contextlib.suppress(OSError):
                os.kill(int(pid), signal.SIGKILL)
        time.sleep(0.02)


@functools.cache
def _parents() -> dict[str, Path]:
    """Under which directory this process may make groups, per controller."""
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
    """The directory of group ``path`` in a hierarchy of which ``root`` is mounted at ``point``."""
    return Path(point) / os.path.relpath(path, root) if path.startswith(root) else Path(point)


def _unified(own: Path, top: Path) -> dict[str, Path]:
    """Version 2: the nearest group at or above ours that passes controllers on to its children."""
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
