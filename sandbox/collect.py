"""Copies back the outputs of a job: requested regular files only, each bounded in size.

Untrusted code wrote the directory; all its processes have ended. Links, pipes, directories, files with a second name
and files over their bound are dropped, with one line that says so.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterable
from pathlib import Path

from sandbox.types import Collect, SandboxBroken

CHUNK = 1 << 20


class Dropped(Exception):
    """An output is not collected; the message says why."""


def check_name(name: str) -> None:
    """Raises ``ValueError`` unless ``name`` is one plain file name."""
    if not name or name in (".", "..") or "/" in name or "\0" in name:
        raise ValueError(f"{name!r} is not a plain file name: outputs are collected by plain names")


def collect(directory: Path, wanted: Iterable[Collect], target: Path, problems: list[str]) -> dict[str, Path]:
    """Copy the wanted files of ``directory``, which the job wrote, into ``target``; absent files are left out.

    ``problems`` receives one line for each file that was dropped.

    Raises:
        SandboxBroken: the host's disk is full.
    """
    found: dict[str, Path] = {}
    try:
        folder = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        problems.append(f"the outputs could not be read: {error.strerror}")
        return found
    try:
        for item in wanted:
            try:
                if _copy(folder, item, target / item.name):
                    found[item.name] = target / item.name
            except Dropped as error:
                problems.append(f"{item.name}: {error}; dropped")
    finally:
        os.close(folder)
    return found


def write_bounded(read: Callable[[int], bytes], destination: Path, limit: int) -> None:
    """Copy up to ``limit`` bytes from ``read`` into a new file.

    Raises:
        Dropped: there are more bytes, or ``read`` fails.
        SandboxBroken: the host cannot copy the file.
    """
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        with destination.open("wb") as file:
            while block := _block(read):
                if file.tell() + len(block) > limit:
                    raise Dropped(f"over {limit} bytes")
                file.write(block)
    except BaseException as error:
        destination.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise SandboxBroken(f"cannot write {destination}: {error.strerror}; free some space") from error
        raise


def _block(read: Callable[[int], bytes]) -> bytes:
    try:
        return read(CHUNK)
    except OSError as error:  # of the job's file, not of the host's disk
        raise Dropped(f"cannot be read ({error.strerror})") from error


def _copy(folder: int, item: Collect, destination: Path) -> bool:
    """Copy a file. Returns whether it exists."""
    try:
        source = os.open(item.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    except FileNotFoundError:
        return False
    except OSError as error:
        why = {errno.ELOOP: "a symbolic link", errno.ENXIO: "no regular file"}.get(error.errno or 0)
        raise Dropped(why or f"cannot be read ({error.strerror})") from error
    try:
        facts = os.fstat(source)
        if not stat.S_ISREG(facts.st_mode):
            raise Dropped("no regular file")
        if facts.st_nlink != 1:
            raise Dropped("a hard link")
        if facts.st_size > item.max_bytes:
            raise Dropped(f"{facts.st_size} bytes, at most {item.max_bytes} are taken")
        write_bounded(lambda size: os.read(source, size), destination, item.max_bytes)
    finally:
        os.close(source)
    return True
