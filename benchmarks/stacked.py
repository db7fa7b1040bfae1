"""Policy ``stacked`` in the simulated nights of ``benchmarks.acceptance``."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any, Protocol

from agent.judge import paired, stacked
from agent.judge.weighing import Weighing

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from benchmarks.acceptance import Edit, Night


class Machine(Protocol):
    """What a night draws its edits and runs from; edits are numbered in the order of ``edit``."""

    seed: Any
    runs: int
    live: list[int]

    def edit(self) -> Edit: ...
    def drawn(self, number: int, below: Iterable[int]) -> Edit: ...
    def run_stack(self, numbers: Sequence[int], seed: int) -> float: ...


CALIBRATION = 5  # runs of the baseline before the first edit
LAST_CHECKS = 3  # runs of branch, baseline and branch at the end
SHORT = 80  # runs below which the branch is checked at the end only


def stacked_night(machine: Machine, budget: int, night: Night) -> Night:
    """One night of the policy; an edit is handed over once its tree has run alone."""
    draw = random.Random(machine.seed)
    weighing = Weighing([(seed, machine.run_stack((), seed)) for seed in range(CALIBRATION)])
    undecided: dict[int, stacked.Undecided] = {}
    kept: dict[int, float] = {}  # edit: reported gain
    ruined, since_check = 0, 0
    while machine.runs < budget - LAST_CHECKS:
        seed = paired.window(night.kept)[machine.runs % paired.WINDOW]
        check = budget >= SHORT and since_check >= stacked.RUNS_PER_CHECK
        new: list[int] = []
        if not check and budget - LAST_CHECKS - machine.runs > stacked.LAST_RUNS:
            count = stacked.new_edits(undecided.values(), len(night.begun), ruined)
            new = [len(night.begun) + k for k in range(count)]
        old = list(undecided)
        ahead = [edit.ahead for edit in undecided.values()]
        inside = [] if check else stacked.choose(weighing.variances(seed, old), draw, ahead)
        for edit in new:
            machine.live = [*kept, *undecided]
            machine.edit()
            weighing.open(edit)
            undecided[edit] = stacked.Undecided()
        night.begun += [machine.runs] * len(new)
        carried = [*(edit for edit, chosen in zip(old, inside, strict=False) if chosen), *new]
        ruined += weighing.observe(seed, machine.run_stack([*kept, *carried], seed), carried, new)
        since_check = 0 if check else since_check + 1
        if check:
            hand_over(machine, night, kept)
        last, share = machine.runs >= budget - LAST_CHECKS, weighing.share
        for edit in list(undecided):
            worth = weighing.worth[edit]
            undecided[edit] = undecided[edit].after(edit in carried, worth.probability, share, last)
            if (step := undecided[edit].step) in ("keep", "drop"):
                if step == "keep":
                    kept[edit] = worth.gain
                weighing.close(edit, step == "keep")
                del undecided[edit]
    machine.runs = budget
    hand_over(machine, night, kept)
    return night


def hand_over(machine: Machine, night: Night, kept: dict[int, float]) -> None:
    """Publish the edits kept since the last check."""
    numbers = list(kept)
    for at in range(night.kept, len(numbers)):
        night.keep(machine.runs, machine.drawn(numbers[at], numbers[:at]), kept[numbers[at]])
