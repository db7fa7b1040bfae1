"""The fold of a session's events into a belief for each type of device."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from agent.judge.belief import Belief
from agent.judge.paired import window
from agent.judge.sharing import InitialWeights
from agent.ledger.events import Candidate, Event, Judged, Measured, Moved, SessionStarted
from agent.types import Measurement, Verdict


@dataclass(frozen=True)
class _Keep:
    """A kept edit, as one type of device measured it."""

    gain: float
    se: float
    shares: bool  # whether it shares the effects of seeds with its parent


@dataclass(eq=False)
class _OnDevice:
    """What one type of device has measured."""

    baseline: list[tuple[int, float]] = field(default_factory=list)  # (seed, z) before the belief starts
    belief: Belief | None = None
    open: set[int] = field(default_factory=set)  # trials in the belief
    keeps: list[_Keep] = field(default_factory=list)

    def start(self) -> Belief | None:
        """The belief, started from the runs of the baseline; None while these do not vary."""
        if self.belief is None and len({z for _, z in self.baseline}) > 1:
            self.belief = Belief(self.baseline)
            for keep in self.keeps:  # kept before this type of device was used
                self.belief.shift(keep.gain, keep.se)
        return self.belief

    def add(self, keep: _Keep) -> None:
        """Count an edit that other types of device have measured."""
        self.keeps.append(keep)
        if self.belief is not None:
            self.belief.shift(keep.gain, keep.se)


class PairedRuns:
    """Call ``catch_up`` with all events, then ``of``. The result depends on the events alone."""

    def __init__(self, seed_of: Callable[[int], int]) -> None:
        """``seed_of``: the k-th seed of the session."""
        self._seed_of = seed_of
        self._read = 0
        self._sign = -1.0
        self._devices: dict[str, _OnDevice] = {}
        self._trials: dict[str, int] = {}  # candidate: its trial
        self._keeps_in: dict[str, int] = {}  # commit: kept edits that it stands on, or contains once it is kept
        self._kept: dict[int, bool] = {}  # of the decided trials
        self._reported: list[_Keep] = []  # kept edits by the verdicts
        self._parents: dict[str, str] = {}  # candidate: measured commit below it
        self._measured_as: dict[str, str] = {}  # accepted commit: its candidate
        self._initial: dict[tuple[str, int], str] = {}  # commit and seed: hash of the initial weights

    def catch_up(self, events: Sequence[Event]) -> PairedRuns:
        for event in events[self._read :]:
            self._apply(event)
        self._read = len(events)
        return self

    def window(self, kept: int) -> tuple[int, ...]:
        """The seeds that may run after so many kept edits."""
        return tuple(map(self._seed_of, window(kept)))

    def of(self, device_type: str, trial: int, weights: InitialWeights = "unknown") -> Belief | None:
        """The belief on one type of device, with the trial open; None where runs of the baseline do not vary."""
        device = self._device(device_type)
        belief = device.start()
        if belief is not None and trial not in device.open:
            belief.open(trial, weights)
            device.open.add(trial)
        return belief

    def _device(self, device_type: str) -> _OnDevice:
        return self._devices.setdefault(device_type, _OnDevice(keeps=list(self._reported)))

    def _apply(self, event: Event) -> None:
        match event:
            case SessionStarted():
                self._sign = 1.0 if event.goal == "maximize" else -1.0
                self._keeps_in[event.baseline] = 0
            case Candidate():
                self._trials[event.commit] = event.trial
                self._keeps_in[event.commit] = self._keeps_in.get(event.parent, len(self._reported))
                self._parents[event.commit] = self._measured_as.get(event.parent, event.parent)
            case Measured(measurement=run) if run.value is not None and run.role != "test":
                self._measured(run, self._sign * run.value)
            case Measured(measurement=run) if run.status == "stopped" and run.prediction is not None:
                self._measured(run, self._sign * run.prediction.value, run.prediction.se)
            case Judged():
                self._judged(event.trial, event.verdict)
            case Moved():
                self._keeps_in[event.commit] = len(self._reported)
                commits = [commit for commit, trial in self._trials.items() if trial == event.trial]
                self._measured_as[event.commit] = commits[-1] if commits else event.commit

    def _measured(self, run: Measurement, z: float, se: float = 0.0) -> None:
        device = self._device(run.device_type)
        trial = self._trials.get(run.commit)
        self._initial[run.commit, run.seed] = run.initial_hash
        if trial is None and device.belief is None:
            device.baseline.append((run.seed, z))
            return
        kept = None if trial is None else self._kept.get(trial)
        if kept is False:
            return  # the run was in flight when its edit was dropped
        under_test = None if kept else trial
        belief = device.start() if under_test is None else self.of(run.device_type, under_test, self._weights(run))
        if belief is not None:
            missing = device.keeps[self._keeps_in[run.commit] :]
            seed = run.seed if all(keep.shares for keep in missing) else ~run.seed  # the incumbent's effect is another
            spread = math.hypot(se, *(keep.se for keep in missing))
            belief.observe(seed, z, under_test, sum(keep.gain for keep in missing), spread)

    def _weights(self, run: Measurement) -> InitialWeights:
        """Whether the initial weights of a candidate are those of its parent under the same seed."""
        before = self._initial.get((self._parents.get(run.commit, ""), run.seed))
        if not before or not run.initial_hash:
            return "unknown"
        return "equal" if run.initial_hash == before else "different"

    def _judged(self, trial: int, verdict: Verdict) -> None:
        kept = self._kept[trial] = verdict.decision == "keep"
        shares, tried = True, list[_OnDevice]()
        for device in self._devices.values():
            if device.belief is not None and trial in device.open:
                estimate = device.belief.estimate(trial)
                shares = estimate.shares > 0.5
                device.belief.close(trial, kept)
                device.open.discard(trial)
                device.keeps.extend([_Keep(estimate.gain, estimate.se, shares)] if kept else [])
                tried.append(device)
        if not kept:
            return
        self._reported.append(_Keep(verdict.gain or 0.0, verdict.gain_se or 0.0, shares))
        count = len(self._reported)
        self._keeps_in.update({commit: count for commit, of in self._trials.items() if of == trial})
        for device in self._devices.values():
            if device not in tried:
                device.add(self._reported[-1])
            if device.belief is not None:
                same = shares or device in tried  # seeds have the effects that this device knows
                device.belief.forget_seeds(self.window(count) if same else ())
