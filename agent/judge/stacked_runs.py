"""The fold of a stacked session's events: what its runs say, and what each undecided edit has come to."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean

from agent.judge.effects import Worth
from agent.judge.stacked import Step, Undecided, decide
from agent.judge.weighing import Weighing
from agent.ledger.events import Event, Judged, Measured, SessionStarted, Stacked, Weighed
from agent.types import Measurement, Verdict, Weight


class StackedRuns:
    """Call ``catch_up`` with all events, then read. The result depends on the events alone."""

    def __init__(self) -> None:
        self.weighing: Weighing | None = None  # None before the first run, and where runs do not vary
        self.device_type = ""  # of all runs: values of different types cannot be compared
        self.edits: dict[int, Undecided] = {}  # that a run has carried, by trial
        self.pending: list[Stacked] = []  # runs without a result
        self.failed: dict[int, str] = {}  # edits whose first run failed, and how
        self.alone: set[int] = set()  # edits that failed beside other undecided ones: each runs again without them
        self.pinned: list[set[int]] = []  # edits in both of two runs with equal weights under different seeds
        self.tried: set[int] = set()  # edits that runs have carried
        self.ruined = 0  # failures and wild losses of new edits
        self.unweighed = 0  # trial of the last run, until the weights after it are in the ledger
        self._values: dict[int, tuple[list[float], list[float]]] = {}  # of the runs with each edit, and without it
        self._read = 0
        self._sign = -1.0
        self._calibration: list[tuple[int, float]] = []
        self._decided: dict[int, Verdict] = {}
        self._weights_of: list[tuple[str, int, set[int]]] = []  # hash of the first weights, seed and edits of each run
        self._decided_before: dict[str, int] = {}  # verdicts before each pending run was planned, by its ref

    def catch_up(self, events: Sequence[Event]) -> StackedRuns:
        for event in events[self._read :]:
            self._apply(event)
        self._read = len(events)
        return self

    @property
    def varies(self) -> bool:
        """Whether the runs of the baseline differ: without noise there is nothing to weigh."""
        return len({z for _, z in self._calibration}) > 1

    @property
    def weights(self) -> tuple[Weight, ...]:
        """What each undecided edit is worth after the last run."""
        return tuple(map(self._weight, self.edits))

    def worth(self, trial: int) -> Worth:
        """The posterior of an edit in ``edits``."""
        assert self.weighing is not None
        return self.weighing.worth[trial]

    def last_step(self, trial: int) -> Step:
        """What an edit has come to if no run will follow: "keep" or "drop"."""
        return decide(self.edits[trial], self.worth(trial).probability, 1.0, last=True)

    def pins_seed(self, trial: int) -> bool | None:
        """Whether an edit pins the seed, so that repeats of its runs tell nothing; None if it may be another edit."""
        pairs = [pair for pair in self.pinned if trial in pair]
        return {trial} in pairs or (None if pairs else False)

    def _weight(self, trial: int) -> Weight:
        worth, edit, (carried, others) = self.worth(trial), self.edits[trial], self._values[trial]
        return Weight(
            trial=trial,
            probability=round(worth.probability, 6),
            gain=worth.gain,
            se=worth.se,
            runs_in=edit.runs_in,
            runs_out=edit.runs_out,
            mean_in=fmean(carried),
            mean_out=fmean(others) if others else None,
            nominated=edit.nominated is not None,
        )

    def _apply(self, event: Event) -> None:
        match event:
            case SessionStarted():
                self._sign = 1.0 if event.goal == "maximize" else -1.0
            case Measured(measurement=run) if run.role == "calibrate":
                self.device_type = self.device_type or run.device_type
                if run.value is not None and run.device_type == self.device_type:
                    self._calibration.append((run.seed, self._sign * run.value))
            case Stacked():
                self.weighing = self.weighing or Weighing(self._calibration)
                self.pending.append(event)
                self._decided_before[event.ref] = len(self._decided)
                self.tried.update(event.new)
            case Measured(measurement=run) if run.role == "stack":
                self._measured(run)
            case Weighed():
                self.unweighed = 0
            case Judged():
                self._judged(event)

    def _measured(self, run: Measurement) -> None:
        stack = next((s for s in self.pending if (s.commit, s.seed) == (run.commit, run.seed)), None)
        if stack is None or self.weighing is None:
            return
        self.pending.remove(stack)
        since = list(self._decided.items())[self._decided_before.pop(stack.ref) :]
        if run.value is None:
            self._failed(stack, f"{run.status}: {run.reason}" if run.reason else run.status)
            return
        self._compare_weights(run, set(stack.edits))
        for trial in (trial for trial in stack.new if trial not in self.edits):
            self.weighing.open(trial)
            self.edits[trial], self._values[trial] = Undecided(), ([], [])
        carried = [trial for trial in stack.edits if trial in self.edits]
        changed = [verdict for trial, verdict in since if (verdict.decision == "keep") != (trial in stack.edits)]
        gains = {kept: sum(v.gain or 0.0 for v in changed if v.decision == kept) for kept in ("keep", "revert")}
        offset, spread = gains["keep"] - gains["revert"], math.hypot(*(v.gain_se or 0.0 for v in changed))
        self.ruined += self.weighing.observe(run.seed, self._sign * run.value, carried, stack.new, offset, spread)
        self.unweighed = stack.trial
        share = self.weighing.share
        for trial, edit in self.edits.items():
            self._values[trial][trial not in carried].append(run.value)
            self.edits[trial] = edit.after(trial in carried, self.worth(trial).probability, share)

    def _failed(self, stack: Stacked, reason: str) -> None:
        self.ruined += bool(stack.new)
        for trial in stack.new:
            if len(stack.edits) == 1 or trial in self.alone:
                self.failed[trial] = reason
            self.alone.add(trial)

    def _compare_weights(self, run: Measurement, edits: set[int]) -> None:
        if run.initial_hash:
            same = [row for row in self._weights_of if row[0] == run.initial_hash and row[1] != run.seed]
            self.pinned += [edits & others for _, _, others in same]
            self._weights_of.append((run.initial_hash, run.seed, edits))

    def _judged(self, event: Judged) -> None:
        self._decided[event.trial] = event.verdict
        self.failed.pop(event.trial, None)
        if self.pins_seed(event.trial):  # it explains all pairs that it is in
            self.pinned = [pair for pair in self.pinned if event.trial not in pair]
        if self.edits.pop(event.trial, None) is not None and self.weighing is not None:
            self.weighing.close(event.trial, event.verdict.decision == "keep")
