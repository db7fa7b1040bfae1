"""What the results of the model's points say about its next ones.

Each point has a forecast before it runs, and is charged with what it promised, at least with what the search promised
by itself. A model that improves more than it was charged was underestimated by the process: its next expected
improvements are multiplied accordingly. One that improves less soon stops being chosen.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

DISCOUNT = 0.9  # weight of a result relative to the next one
OPTIMISM = 2.0  # factor before any result
ALLOWANCE = 2.0  # units of noise that this factor counts for: bounds what exploration costs
LOWEST, HIGHEST = 0.02, 20.0  # bounds of the factor
START, START_WEIGHT = 0.2, 3.0  # credit before any result
LEAST, MOST = 0.04, 0.5  # bounds of the share
RELIABLE = 4.0  # successes that the model has at the start


@dataclass(frozen=True)
class Forecast:
    """A point of the model before it ran. The names are those in the ledger."""

    forecast: float  # mean
    deviation: float  # of the value without noise
    noise: float  # standard deviation of one run
    best: float  # smallest predicted value
    charge: float  # improvement that the result has to bring
    own: float  # improvement that the search promised by itself
    success: float  # probability

    @classmethod
    def of(cls, figures: Mapping[str, float]) -> Forecast | None:
        """The forecast among ``figures``; None without one."""
        names = [field.name for field in fields(cls)]
        return cls(**{name: figures[name] for name in names}) if all(name in figures for name in names) else None

    def improvement(self, value: float) -> float:
        """Improvement of the best predicted value by a result, less its noise."""
        trust = self.deviation**2 / (self.deviation**2 + self.noise**2)
        return max(self.best - (self.forecast + trust * (value - self.forecast)), 0.0)


class Author:
    """The discounted record of the model."""

    def __init__(self) -> None:
        self._gained = self._charged = 0.0  # units of noise
        self._credit, self._asks = START_WEIGHT * START, START_WEIGHT
        self._worked, self._hoped = RELIABLE, RELIABLE

    @property
    def factor(self) -> float:
        """Improvement over what was charged: above 1 if the process underestimates the model."""
        factor = (ALLOWANCE * OPTIMISM + self._gained) / (ALLOWANCE + self._charged)
        return min(max(factor, LOWEST), HIGHEST)

    @property
    def share(self) -> float:
        """Share of the asks in which the model takes part."""
        return min(max(2.0 * self._credit / self._asks, LEAST), MOST)

    @property
    def reliability(self) -> float:
        """Successes over what the failure model promised, at most 1."""
        return min(self._worked / self._hoped, 1.0)

    def asked(self, credit: float = 0.0) -> None:
        """The model took part in an ask, and its point brought ``credit``; it counts between -1 and 1."""
        self._credit = DISCOUNT * self._credit + min(max(credit, -1.0), 1.0)
        self._asks = DISCOUNT * self._asks + 1.0

    def learn(self, value: float | None, forecast: Forecast) -> None:
        """A point gave ``value``, None for a failure. Credit: improvement over ``forecast.own``, in units of noise."""
        gain = 0.0 if value is None else forecast.improvement(value)
        self._gained = DISCOUNT * self._gained + gain / forecast.noise
        self._charged = DISCOUNT * self._charged + forecast.charge / forecast.noise
        self._worked = DISCOUNT * self._worked + (value is not None)
        self._hoped = DISCOUNT * self._hoped + forecast.success
        self.asked((gain - forecast.own) / forecast.noise)
