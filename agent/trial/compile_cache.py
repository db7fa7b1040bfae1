"""The cache of ``torch.compile`` for all runs of a session: written by the baseline, read-only for every trial.

On a GPU, compiling takes much of a trial's start-up, and most trials change little of the compiled code. A cache
that trials write would let one trial choose what the next trial computes. So only a calibration run, which runs the
unchanged program, writes the cache. The host never reads its content; every job that does runs in a sandbox.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from agent.types import Role
from sandbox.types import Collect

FILE = Collect("compiled.bin", 1 << 29)  # an output of the run that writes it, in the data folder of the others


@dataclass(frozen=True)
class Compiled:
    """The file of the cache in the run directory; None: there is no cache."""

    place: Path | None = None

    def missing(self, role: Role) -> bool:
        """Whether a run in this role must write the cache."""
        return role == "calibrate" and self.place is not None and not self.place.exists()

    def stage(self, data: Path) -> None:
        """Copy the cache to the data folder of a run."""
        if self.place is not None and self.place.exists():
            shutil.copyfile(self.place, data / FILE.name)

    def take(self, directory: Path) -> None:
        """Keep the cache that a calibration run wrote to ``directory``, if it compiled anything."""
        left = directory / FILE.name
        if self.place is not None and left.exists():
            left.replace(self.place)


NOTHING = Compiled()
