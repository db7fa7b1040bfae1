"""The fold of a session's events into a belief for each type of device."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from agent.judge.belief import Belief
from agent.judge.paired import window
from agent.ledger.events import Candidate, Event, Judged, Measured, Moved, SessionStarted
from agent.types import Measurement


@dataclass
class _OnDevice:
    """What one type of device has measured."""

    baseline: list[tuple[int, float]] = field(default_factory=list)  # (seed, z) before the belief starts
    belief: Belief | None = None
    open: set[int] = field(default_factory=set)  # trials in the belief
    gains: list[tuple[float, float]] = field(default_factory=list)  # gain and standard error of each keep

    def start(self) -> Belief | None:
        """The belief, started from the runs of the baseline; None while these do not vary."""
        if self.belief is None and len({z for _, z in self.baseline}) > 1:
            self.belief = Belief(self.baseline)
            for gain, se in self.gains:  # kept before this type of device was used
                self.belief.shift(gain, se)
        return self.belief


class Beliefs:
    """Call ``catch_up`` with all events, then ``of``. The result depends on the events alone."""

    def __init__(self, seed_of: Callable[[int], int]) -> None:
        """``seed_of``: the k-th seed of the session."""
        self._seed_of = seed_of
        self._read = 0
        self._sign = -1.0
        self._devices: dict[str, _OnDevice] = {}
        self._trials: dict[str, int] = {}  # candidate: its trial
        self._keeps: dict[str, int] = {}  # commit: kept edits that it stands on, or contains once it is kept
        self._decided: set[int] = set()
        self._kept: list[int] = []
        self._gains: list[tuple[float, float]] = []  # of the kept trials, by their verdicts

    def catch_up(self, events: Sequence[Event]) -> Beliefs:
        for event in events[self._read :]:
            self._apply(event)
        self._read = len(events)
        return self

    def window(self, kept: int) -> tuple[int, ...]:
        """The seeds that may run after so many kept edits."""
        return tuple(map(self._seed_of, window(kept)))

    def of(self, device_type: str, trial: int) -> Belief | None:
        """The belief on one type of device, with the trial open; None where runs of the baseline do not vary."""
        device = self._device(device_type)
        belief = device.start()
        if belief is not None and trial not in device.open:
            belief.open(trial)
            device.open.add(trial)
        return belief

    def _device(self, device_type: str) -> _OnDevice:
        return self._devices.setdefault(device_type, _OnDevice(gains=list(self._gains)))

    def _apply(self, event: Event) -> None:
        match event:
            case SessionStarted():
                self._sign = 1.0 if event.goal == "maximize" else -1.0
                self._keeps[event.baseline] = 0
            case Candidate():
                self._trials[event.commit] = event.trial
                self._keeps[event.commit] = self._keeps.get(event.parent, len(self._kept))
            case Measured(measurement=run) if run.value is not None and run.role != "test":
                self._measured(run, self._sign * run.value)
            case Measured(measurement=run) if run.status == "stopped" and run.prediction is not None:
                self._measured(run, self._sign * run.prediction.value, run.prediction.se)
            case Judged():
                self._judged(event.trial, event.verdict.decision == "keep", event.verdict.gain, event.verdict.gain_se)
            case Moved():
                self._keeps[event.commit] = len(self._kept)

    def _measured(self, run: Measurement, z: float, se: float = 0.0) -> None:
        device = self._device(run.device_type)
        trial = self._trials.get(run.commit)
        if trial is None and device.belief is None:
            device.baseline.append((run.seed, z))
            return
        if trial in self._decided and trial not in self._kept:
            return  # the run was in flight when its edit was dropped
        edits = () if trial is None or trial in self._kept else (trial,)
        belief = self.of(run.device_type, trial) if trial is not None and edits else device.start()
        if belief is not None:
            missing = device.gains[self._keeps[run.commit] :]
            offset = sum(gain for gain, _ in missing)
            belief.observe(run.seed, z, edits, offset, math.hypot(se, *(other for _, other in missing)))

    def _judged(self, trial: int, kept: bool, gain: float | None, se: float | None) -> None:
        self._decided.add(trial)
        if kept:
            self._kept.append(trial)
            self._keeps.update({commit: len(self._kept) for commit, of in self._trials.items() if of == trial})
            self._gains.append((gain or 0.0, se or 0.0))
        for device in self._devices.values():
            found = (gain or 0.0, se or 0.0)
            if device.belief is not None and trial in device.open:
                estimate = device.belief.estimate(trial)
                found = (estimate.gain, estimate.se)
                device.belief.close(trial, kept)
                device.open.discard(trial)
            elif device.belief is not None and kept:
                device.belief.shift(*found)
            if kept:
                device.gains.append(found)
                if device.belief is not None:
                    device.belief.forget_seeds(self.window(len(self._kept)))
