"""Temporary folders of a run, readable by sandboxed users. ``Sandbox.sweep`` removes what a killed session left."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from agent.errors import EnvironmentProblem
from sandbox.layout import job_name
from sandbox.local import SHARED
from sandbox.rmtree import remove_tree


@contextmanager
def workspace(owner: str, memory: bool = False) -> Iterator[Path]:
    """An empty folder, removed at the end; ``memory``: in memory, if the machine has /dev/shm."""
    folder = (SHARED if memory and SHARED.is_dir() else Path(tempfile.gettempdir())) / job_name(owner)
    try:
        folder.mkdir(mode=0o700)
        folder.chmod(0o755)  # independent of the umask
    except OSError as error:
        raise EnvironmentProblem(f"cannot make a temporary folder: {error.strerror}. Free some space.") from error
    try:
        yield folder
    finally:
        remove_tree(folder)
