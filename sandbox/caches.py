"""Drops the kernel's caches of files, so that no later job can time what an earlier one has used.

The kernel keeps the names that a job looked up and the pages that it read. Both are faster for the next job, so a job
can pass information to the next one. Needs root. The drop affects the whole machine: programs read their files from the
disk again.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

_DROP = Path("/proc/sys/vm/drop_caches")
_NAMES_AND_PAGES = "3"  # Linux, Documentation/admin-guide/sysctl/vm.rst, "drop_caches"


def can_drop() -> bool:
    """Whether this process may drop the caches."""
    return os.access(_DROP, os.W_OK)


def drop() -> None:
    """Drop names and unmapped pages of all files; does nothing without the permission."""
    if can_drop():
        with contextlib.suppress(OSError):  # a container may show the file and refuse the write
            _DROP.write_text(_NAMES_AND_PAGES)
