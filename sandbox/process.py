"""A plain process of the user who runs the session.

Covers: every process of the job ends with it, daemons included; memory and processes where control groups can be made;
the size of what it prints and leaves; its environment. Does not cover: the job can read what the user can read, write
where the user can write, and use the network. For code that nobody has read, take another sandbox.
"""

from __future__ import annotations

import sys

from sandbox import cgroups as groups
from sandbox import layout, local
from sandbox.types import Guarantee, Job, Running


class ProcessSandbox:
    """Needs nothing but Linux."""

    name = "process"

    def __init__(self) -> None:
        held = {Guarantee.KILLS_TREE, Guarantee.BOUNDED_OUTPUT, Guarantee.CLEAN_ENVIRONMENT, Guarantee.LIMITS_MEMORY}
        if "pids" in groups.controllers():
            held.add(Guarantee.LIMITS_PROCESSES)
        self.guarantees = frozenset(held)

    def check(self) -> None:
        """A process can always be started."""

    def start(self, job: Job) -> Running:
        layout.check_job(job)
        with local.scratch_for(job) as scratch:
            places = {name: str(mount.source.resolve()) for name, mount in job.mounts.items()}
            places |= {"out": str(scratch / "out"), "python": sys.executable}
            env = layout.environment(job, places, str(scratch / "tmp"))
            command = local.Command(layout.command(job, places), env, places[job.workdir])
            return local.LocalRunning(job, command, scratch)

    def sweep(self, owner: str) -> int:
        return local.sweep(owner)
