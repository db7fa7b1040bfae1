"""A plain process of the user who runs the session.

Covers: all processes of the job end with it, daemons included; memory, and processes where control groups can be made;
the size of output and collected files; a clean environment.

Does not cover: the job reads and writes whatever the user can, and may use the network. Use bwrap or docker for
unreviewed code.
"""

from __future__ import annotations

import ctypes
from pathlib import Path

from sandbox import cgroups, layout, local
from sandbox.types import Guarantee, Job, Running


class ProcessSandbox(local.LocalSandbox):
    """Needs Linux or macOS. macOS cannot find daemons that detach themselves from the job."""

    name = "process"

    def __init__(self) -> None:
        held = {Guarantee.BOUNDED_OUTPUT, Guarantee.CLEAN_ENVIRONMENT, Guarantee.LIMITS_MEMORY}
        if hasattr(ctypes.CDLL(None), "prctl"):
            held.add(Guarantee.KILLS_TREE)
        if "pids" in cgroups.controllers():
            held.add(Guarantee.LIMITS_PROCESSES)
        self.guarantees = frozenset(held)

    def check(self) -> None:
        """A process can always be started."""

    def _start(self, job: Job, scratch: Path) -> Running:
        places = {name: str(mount.source.resolve()) for name, mount in job.mounts.items()}
        places |= {"out": str(scratch / "out"), "python": job.python.path}
        env = layout.environment(job, places, str(scratch / "tmp"))
        return local.LocalRunning(job, scratch, layout.command(job, places), env, places[job.workdir])
