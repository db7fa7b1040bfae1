"""Processor time of a job, sampled from the host's /proc: all its processes, ended ones included.

Does not cover: processes that start and end between two samples and whose parent ignores their end.
"""

from __future__ import annotations

import os
from pathlib import Path

from sandbox.supervisor import descendants

_TICKS = os.sysconf("SC_CLK_TCK")


def processors() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1  # macOS


class ProcessorTime:
    """Samples the processes below a root process."""

    def __init__(self) -> None:
        self._own: dict[int, int] = {}  # ticks of each process that was seen
        self._most = 0

    def seconds(self, root: int | None) -> float:
        """Processor time until now; only the last sample counts once the root is gone (``root`` None)."""
        if root:
            found = {pid: _ticks(pid) for pid in descendants(root)}
            self._own |= {pid: own for pid, (own, _) in found.items()}
            alive = sum(own + reaped for own, reaped in found.values()) + _ticks(root)[1]
            self._most = max(self._most, alive, sum(self._own.values()))
        return self._most / _TICKS


def _ticks(pid: int) -> tuple[int, int]:
    """Ticks of one process, and of its children that it has waited for."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0, 0
    return int(fields[11]) + int(fields[12]), int(fields[13]) + int(fields[14])
