"""What the results of the model's points say about its next ones.

The process predicts each point before it runs. A result better than predicted raises the bonus of the next points; the
credit of a result is the improvement over what CMA-ES's own best sample was expected to bring, in units of the noise.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields

DISCOUNT = 0.9  # weight of a result relative to the next one
OPTIMISM, OPTIMISM_WEIGHT = 1.0, 3.0  # bonus before any result, and the number of results that it counts for
HIGHEST = 2.0  # bonus, in standard deviations of the process
SURPRISE = 3.0  # a result counts for at most this many standard deviations
ALLOWANCE = 20.0  # units of noise that points run for their bonus may cost; paid back by improvements
START, START_WEIGHT = 0.2, 3.0  # credit before any result
LEAST, MOST = 0.04, 0.5  # bounds of the share
HANDICAP = 3.0  # log of the factor on expected improvements at the lowest mean credit
RELIABLE = 4.0  # successes that the author has to begin with


@dataclass(frozen=True)
class Forecast:
    """The process on a point of the model, before it ran."""

    forecast: float  # mean
    deviation: float  # of the value without noise
    noise: float  # standard deviation of one run
    best: float  # smallest predicted value
    own: float  # expected improvement of the best sample of CMA-ES
    success: float  # probability

    @classmethod
    def of(cls, figures: Mapping[str, float]) -> Forecast | None:
        """The forecast among ``figures``; None without one."""
        names = [field.name for field in fields(cls)]
        return cls(**{name: figures[name] for name in names}) if all(name in figures for name in names) else None

    def surprise(self, value: float) -> float:
        """How much better than predicted, in standard deviations."""
        z = (self.forecast - value) / math.hypot(self.deviation, self.noise)
        return min(max(z, -SURPRISE), SURPRISE)

    def improvement(self, value: float) -> float:
        """Improvement of the best predicted value by a result, less its noise."""
        trust = self.deviation**2 / (self.deviation**2 + self.noise**2)
        return max(self.best - (self.forecast + trust * (value - self.forecast)), 0.0)


class Author:
    """The discounted record of the model."""

    def __init__(self) -> None:
        self._surprise, self._surprises = OPTIMISM_WEIGHT * OPTIMISM, OPTIMISM_WEIGHT
        self._credit, self._asks = START_WEIGHT * START, START_WEIGHT
        self._worked, self._hoped = RELIABLE, RELIABLE
        self.balance = ALLOWANCE

    @property
    def bonus(self) -> float:
        """Standard deviations by which the model's points are expected to be better than predicted."""
        return min(max(self._surprise / self._surprises, 0.0), HIGHEST) if self.balance > 0.0 else 0.0

    @property
    def favour(self) -> float:
        """What is added to the log of an expected improvement of the model: negative after points that cost more."""
        return HANDICAP * min(self._credit / self._asks, 0.0)

    @property
    def share(self) -> float:
        """Share of the asks in which the model takes part."""
        return min(max(2.0 * self._credit / self._asks, LEAST), MOST)

    @property
    def reliability(self) -> float:
        """The model's successes over what the boundaries promised, at most 1."""
        return min(self._worked / self._hoped, 1.0)

    def asked(self, credit: float = 0.0) -> None:
        """The model took part in an ask, and its point brought ``credit``; it counts between -1 and 1."""
        self._credit = DISCOUNT * self._credit + min(max(credit, -1.0), 1.0)
        self._asks = DISCOUNT * self._asks + 1.0

    def learn(self, value: float | None, forecast: Forecast) -> float:
        """A point of the model gave ``value``; None for a failure. Returns its credit."""
        gain = 0.0 if value is None else forecast.improvement(value)
        credit = (gain - forecast.own) / forecast.noise
        self.balance = min(self.balance + credit, ALLOWANCE)
        self._worked = DISCOUNT * self._worked + (value is not None)
        self._hoped = DISCOUNT * self._hoped + forecast.success
        if value is not None:
            self._surprise = DISCOUNT * self._surprise + forecast.surprise(value)
            self._surprises = DISCOUNT * self._surprises + 1.0
        self.asked(credit)
        return credit
