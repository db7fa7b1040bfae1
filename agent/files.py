"""Files that several processes share: atomic writes and locks."""

from __future__ import annotations

import fcntl
import time
from pathlib import Path
from typing import IO


def replace_file(path: Path, content: str | bytes) -> None:
    """Write a file atomically: a reader sees the old content or the new content."""
    scratch = path.with_name(f".{path.name}.new")
    scratch.write_bytes(content if isinstance(content, bytes) else content.encode())
    scratch.replace(path)


def acquire(file: IO[str], seconds: float = 0.0) -> bool:
    """Acquire the lock of an open file, retrying for ``seconds``. The kernel releases it when the process dies."""
    until = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() >= until:
                return False
            time.sleep(0.02)
