"""What ``torch.compile`` made of the baseline, for the runs that follow: read-only, and of no trial's making.

On a GPU compiling takes a good part of a trial's start-up, and most trials change little of what is compiled. A cache
that trials wrote would let one of them choose what the next one computes. So only a calibration run leaves one, that is
the program which the user started from; the host never looks into it, and every job that reads it is in a sandbox.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from agent.types import Role
from sandbox.types import Collect

FILE = Collect("compiled.bin", 1 << 29)  # among the outputs of the run that leaves it, in the data of the others


@dataclass(frozen=True)
class Compiled:
    """The file that holds it, in the run directory; None: nothing is kept."""

    place: Path | None = None

    def missing(self, role: Role) -> bool:
        """Whether a run in this role is to leave it."""
        return role == "calibrate" and self.place is not None and not self.place.exists()

    def stage(self, data: Path) -> None:
        """Let the run that finds its data in ``data`` begin with it."""
        if self.place is not None and self.place.exists():
            shutil.copyfile(self.place, data / FILE.name)

    def take(self, directory: Path) -> None:
        """Keep what a calibration run left in ``directory``, if it did: there is none where nothing is compiled."""
        left = directory / FILE.name
        if self.place is not None and left.exists():
            left.replace(self.place)


NOTHING = Compiled()
