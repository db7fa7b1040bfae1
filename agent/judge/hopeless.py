"""Runs cut short: what the loss curve of a run says about its final value. Pure functions.

A candidate and the incumbent ran under one seed. At 30, 50 and 70 % of the budget x is the difference of their training
losses, and y the gain at the end. Finished pairs of the session give a regression y = slope · x through the origin. A
new run is hopeless once the upper end of the 99 % prediction interval of its gain lies below the gate: the gain below
which the judge drops the edit. The interval has the heavy tails of Student's t with 5 degrees of freedom.

Source: Student's t prediction interval of a regression through the origin (Eisenhauer 2003, Teaching Statistics 25(3)).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from agent.judge.noise import t_quantile
from agent.types import Goal, Prediction

# shares of the budget; at the first, before any training, only the losses' kind shows
MILESTONES = (0.0, 0.3, 0.5, 0.7)
WINDOW = 0.1  # share of the budget over which the loss is averaged
EVIDENCE = 20  # finished pairs before any run is stopped
CONFIDENCE = 0.99
TAILS = 5  # most degrees of freedom of the interval: a few edits start badly and end well
SAME_KIND = 0.01  # relative difference of the first losses above which an edit is taken to change the loss itself
CHECKED = 10  # one in this number of hopeless runs is finished all the same, to check the predictions


@dataclass
class Milestones:
    """Reads the mean loss at each milestone from the steps that a run reports."""

    losses: tuple[float, ...] = ()
    _points: list[tuple[float, float]] = field(default_factory=list)

    def add(self, progress: float | None, loss: float | None) -> bool:
        """Read one step; True if the run has passed a milestone with it."""
        if progress is None or loss is None or len(self.losses) == len(MILESTONES):
            return False
        self._points = [(p, value) for p, value in self._points if p > progress - WINDOW + 1e-9] + [(progress, loss)]
        passed = sum(progress >= milestone for milestone in MILESTONES) - len(self.losses)
        mean = sum(value for _, value in self._points) / len(self._points)
        self.losses += (mean,) * passed
        return passed > 0


@dataclass(frozen=True)
class Pair:
    """A candidate and its incumbent under one seed, both finished."""

    before: tuple[float, ...]  # losses of the incumbent at the milestones
    after: tuple[float, ...]
    gain: float  # positive is better


@dataclass(frozen=True)
class Fit:
    """The regression at one milestone."""

    slope: float
    scale: float  # standard deviation of a gain around the line
    squares: float  # sum of the squared differences of losses
    dof: int

    def predict(self, difference: float) -> tuple[float, float]:
        """The expected gain and its standard error."""
        return self.slope * difference, self.scale * math.sqrt(1 + difference**2 / self.squares)


@dataclass(frozen=True)
class Watch:
    """All that a worker needs to stop one run."""

    losses: tuple[float, ...]  # of the incumbent under the same seed
    value: float  # of the same run
    goal: Goal
    device_type: str  # of the same run
    fits: tuple[Fit, ...]  # from the second milestone on
    gate: float  # gain below which the edit is dropped
    finish: bool = False  # only note the prediction, and finish the run

    def look(self, losses: Sequence[float]) -> Prediction | None:
        """The prediction for a run that reached these losses, if it is hopeless."""
        at = len(losses) - 1
        if not 1 <= at <= len(self.fits) or not same_kind(self.losses, losses):
            return None
        difference, fit = losses[at] - self.losses[at], self.fits[at - 1]
        gain, se = fit.predict(difference)
        if fit.slope >= 0 or gain + t_quantile(CONFIDENCE, min(fit.dof, TAILS)) * se >= self.gate:
            return None
        value = self.value - gain if self.goal == "minimize" else self.value + gain
        return Prediction(MILESTONES[at], value, gain, se)


def same_kind(before: Sequence[float], after: Sequence[float]) -> bool:
    """Whether two runs start from the same loss: else an edit has changed what the loss measures."""
    return bool(before and after) and abs(after[0] - before[0]) <= SAME_KIND * abs(before[0])


def fits_of(pairs: Sequence[Pair]) -> tuple[Fit, ...]:
    """The regression at each milestone but the first; () with too few pairs."""
    whole = [pair for pair in pairs if len(pair.before) == len(pair.after) == len(MILESTONES)]
    usable = [pair for pair in whole if same_kind(pair.before, pair.after)]
    if len(usable) < EVIDENCE:
        return ()
    found = []
    for at in range(1, len(MILESTONES)):
        points = [(pair.after[at] - pair.before[at], pair.gain) for pair in usable]
        squares = math.fsum(x * x for x, _ in points)
        if squares == 0:
            return ()
        slope = math.fsum(x * y for x, y in points) / squares
        rest = math.fsum((y - slope * x) ** 2 for x, y in points)
        found.append(Fit(slope, math.sqrt(rest / (len(points) - 1)), squares, len(points) - 1))
    return tuple(found)
