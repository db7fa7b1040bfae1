"""Bringing back what a job left: only the regular files that were asked for, each bounded in bytes.

The directory was written by code that nobody has read, and every process of that code is dead by now. Links, pipes,
directories, files with a second name and files over their bound are dropped with one line that says so.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable
from pathlib import Path

from sandbox.types import Collect, SandboxBroken

_CHUNK = 1 << 20
_HOST_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


def check_name(name: str) -> None:
    """Raises ``ValueError`` unless ``name`` is one plain file name."""
    if not name or name in (".", "..") or "/" in name or "\0" in name:
        raise ValueError(f"{name!r} is not a plain file name: a job's outputs are collected by plain names")


def collect(directory: Path, wanted: Iterable[Collect], target: Path, problems: list[str]) -> dict[str, Path]:
    """Copy the wanted files of ``directory`` into ``target``. What is absent is left out; what is odd is a problem.

    Raises:
        SandboxBroken: the disk of the host is full.
    """
    found: dict[str, Path] = {}
    try:
        folder = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        problems.append(f"the outputs could not be read: {error.strerror}")
        return found
    try:
        for item in wanted:
            check_name(item.name)
            problem = _bring(folder, item, target / item.name)
            if problem is None:
                found[item.name] = target / item.name
            elif problem:
                problems.append(f"{item.name}: {problem}; dropped")
    finally:
        os.close(folder)
    return found


def _bring(folder: int, item: Collect, destination: Path) -> str | None:
    """None when the file was copied, "" when there is none, else what is wrong with it."""
    try:
        source = os.open(item.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    except FileNotFoundError:
        return ""
    except OSError as error:
        if error.errno == errno.ELOOP:
            return "a symbolic link"
        return "no regular file" if error.errno == errno.ENXIO else f"cannot be read ({error.strerror})"
    try:
        facts = os.fstat(source)
        if not stat.S_ISREG(facts.st_mode):
            return "no regular file"
        if facts.st_nlink != 1:
            return "a hard link"
        if facts.st_size > item.max_bytes:
            return f"{facts.st_size} bytes, at most {item.max_bytes} are taken"
        return _copy(source, destination, item.max_bytes)
    finally:
        os.close(source)


def _copy(source: int, destination: Path, limit: int) -> str | None:
    copied = 0
    destination.parent.mkdir(parents=True, exist_ok=True)
    try:
        with destination.open("wb") as out:
            while block := os.read(source, _CHUNK):
                copied += len(block)
                if copied > limit:
                    break
                out.write(block)
    except OSError as error:
        destination.unlink(missing_ok=True)
        if error.errno in _HOST_FULL:
            raise SandboxBroken(f"cannot write {destination}: {error.strerror}; free some space") from error
        return f"cannot be read ({error.strerror})"
    if copied > limit:
        destination.unlink(missing_ok=True)
        return f"over {limit} bytes"
    return None
