"""The sequential test of policy ``stacked``: what each run carries, and when an edit is kept or dropped.

Each run carries its new edits and a chosen half of the edits that are still undecided (a weighing design), so that
measuring an edit again costs no extra run. ``weighing`` has the model that separates their effects.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from agent.judge.filters import Array

HALVES, FLIPS = 32, 12  # random rows, and flips of the best one
MOST_OPEN = 20  # undecided edits
MOST_FOR_TWO = 10  # undecided edits up to which a run carries two new ones
RUINED = 0.1  # share of new edits that fail or lose wildly, up to which a run carries two new ones
NOMINATE, PASS = 0.8, 0.95  # probability of a gain
PASS_IN = PASS_OUT = 3  # runs with and without a nominated edit before it passes
RUNS_PER_CHECK = 24  # runs between two runs of the kept edits alone, after which the branch moves
LAST_RUNS = 5  # runs at the end without new edits
FEW = 3  # undecided edits below which halves are no design: each edit is then in and out in turn
MOST_AHEAD = 2  # runs with an edit more than without it, where edits are few
HOPELESS = 0.5  # an edit is dropped when its probability is below this share of a new edit's


Step = Literal["keep", "drop", "nominate", "doubt", "wait"]


@dataclass(frozen=True)
class Undecided:
    """How many runs carried an undecided edit since its first, how many did not, and what it has come to."""

    runs_in: int = 0
    runs_out: int = 0
    nominated: tuple[int, int] | None = None  # ``runs_in`` and ``runs_out`` when it became likely to be a gain
    step: Step = "wait"

    @property
    def ahead(self) -> int:
        """Runs with it more than without it."""
        return self.runs_in - self.runs_out

    def after(self, carried: bool, probability: float, share: float, last: bool = False) -> Undecided:
        """The edit after one more run, with its new probability; for the rest see ``decide``."""
        edit = replace(self, runs_in=self.runs_in + carried, runs_out=self.runs_out + (not carried))
        step = decide(edit, probability, share, last)
        marks = {"nominate": (edit.runs_in, edit.runs_out), "doubt": None}
        return replace(edit, step=step, nominated=marks.get(step, edit.nominated))


def decide(edit: Undecided, probability: float, share: float, last: bool = False) -> Step:
    """What an edit has come to after a run.

    Args:
        edit: Its counts.
        probability: That it is a gain.
        share: Of gains among new edits, by the prior as it is now.
        last: Whether no more runs will follow.
    """
    if edit.nominated is None and not (probability > NOMINATE and edit.runs_in >= 2 and edit.runs_out >= 1):
        return "drop" if last or probability < HOPELESS * share else "wait"
    since = edit.nominated or (edit.runs_in, edit.runs_out)
    confirmed = edit.runs_in - since[0] >= PASS_IN and edit.runs_out - since[1] >= PASS_OUT
    if last or confirmed:
        return "keep" if probability > PASS else "drop" if last else "doubt"
    return "wait" if edit.nominated else "nominate"


def new_edits(undecided: Iterable[Undecided], tried: int, ruined: int) -> int:
    """How many new edits the next run carries: 0, 1 or 2.

    Args:
        undecided: Edits without a verdict.
        tried: Number of all edits that runs have carried.
        ruined: Number of those that failed or lost wildly.
    """
    count = sum(edit.nominated is None for edit in undecided)
    calm = (2 + ruined) / (10 + tried) <= RUINED
    return 0 if count >= MOST_OPEN else 2 if calm and count < MOST_FOR_TWO else 1


def choose(matrix: Array, draw: random.Random, ahead: Sequence[int] = ()) -> list[bool]:
    """Which undecided edits the next run carries: those that tell most.

    Of ``HALVES`` random halves the one with the largest predicted variance, then single flips while it grows.

    Args:
        matrix: ``Weighing.variances`` of the edits.
        draw: For the halves.
        ahead: Of each edit.
    """
    count = len(matrix) - 1
    if 0 < count < FEW and any(more > MOST_AHEAD for more in ahead):
        return [more <= MOST_AHEAD for more in ahead]
    rows = np.array([[1.0, *(draw.random() < 0.5 for _ in range(count))] for _ in range(HALVES)])
    best = rows[int(np.argmax(np.einsum("ri,ij,rj->r", rows, matrix, rows)))]
    for _ in range(FLIPS):
        grows = np.where(best > 0, -2.0, 2.0) * (matrix @ best) + np.diag(matrix)
        grows[0] = -1.0
        at = int(np.argmax(grows))
        if grows[at] <= 1e-9:
            break
        best[at] = 1.0 - best[at]
    return [bool(inside) for inside in best[1:]]
