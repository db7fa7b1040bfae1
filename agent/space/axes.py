"""Axes of the search space: each maps [0, 1] onto the values of one hyperparameter and back.

Each value of a finite axis has an equal share of [0, 1]; on a logarithmic axis of whole numbers the shares follow the
logarithm. A float is rounded to four significant digits (more where the bounds share leading digits), so the diff is
short and the optimiser receives exactly the point that was evaluated.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np

from agent.types import Param, Value, is_number

DIGITS = 4  # significant digits of a decoded float
KEY_DIGITS = 6  # significant digits by which two floats are the same configuration
GRID = 65  # values that represent an axis with too many values to list
LISTED = 260  # values up to which an axis is listed completely


class Axis(ABC):
    """Maps [0, 1] onto the values of ``param``. ``count`` is the number of values; None for a float."""

    count: int | None = None

    def __init__(self, param: Param) -> None:
        self.param = param

    @abstractmethod
    def decode(self, u: float) -> Value:
        """The value at ``u`` in [0, 1]."""

    @abstractmethod
    def encode(self, value: Value) -> float:
        """The centre of a valid value's share of [0, 1]."""

    @abstractmethod
    def problem(self, value: Value) -> str:
        """Why ``value`` is not on this axis; empty if it is."""

    @abstractmethod
    def exact(self, value: Value) -> Value:
        """A valid value in the Python type of the parameter: 8 for 8.0, no numpy scalars."""

    def canonical(self, value: Value) -> Value:
        """Canonical form for deduplication: equal iff two values are the same configuration."""
        return self.exact(value)

    @property
    def indexed(self) -> bool:
        """Whether other libraries search the index of a value: of a choice (``True`` and ``1`` differ), or a power."""
        return self.param.kind == "categorical" or self.param.power_of_two

    def outward(self, value: Value) -> Value:
        """The index of a valid value on an ``indexed`` axis, else the value."""
        return round(self.encode(value) * (self.count or 0) - 0.5) if self.indexed else self.exact(value)

    def inward(self, value: Value) -> Value:
        """The inverse of ``outward``. Floats are rounded as in ``decode``."""
        return self.decode((int(value) + 0.5) / (self.count or 1) if self.indexed else self.encode(self.exact(value)))

    def values(self, most: float = LISTED) -> Sequence[Value]:
        """All values if there are at most ``most``, else ``GRID`` of them from end to end."""
        if self.count is not None and self.count <= most:
            places = [(i + 0.5) / self.count for i in range(self.count)]
        else:
            places = [i / (GRID - 1) for i in range(GRID)]
        return list(dict.fromkeys(map(self.decode, places)))


class Choices(Axis):
    """The choices of a categorical parameter, in their order. ``True`` and ``1`` are different choices."""

    def __init__(self, param: Param) -> None:
        super().__init__(param)
        self.count: int = len(param.choices)

    def decode(self, u: float) -> Value:
        return self.param.choices[_bin(u, self.count)]

    def encode(self, value: Value) -> float:
        return (self._index(value) + 0.5) / self.count

    def problem(self, value: Value) -> str:
        if self._index(value) >= 0:
            return ""
        return f"{self.param.name} = {value!r} is not one of {', '.join(map(repr, self.param.choices))}"

    def exact(self, value: Value) -> Value:
        return self.param.choices[self._index(value)]

    def _index(self, value: Value) -> int:
        """-1 for a value that is no choice."""
        value = plain(value)
        for i, choice in enumerate(self.param.choices if isinstance(value, (bool, int, float, str)) else ()):
            if choice == value and isinstance(choice, bool) == isinstance(value, bool):
                return i
        return -1


class Number(Axis):
    """Common part of the numeric axes: inclusive bounds."""

    def __init__(self, param: Param) -> None:
        super().__init__(param)
        assert param.low is not None
        assert param.high is not None
        self.low, self.high = float(param.low), float(param.high)

    def problem(self, value: Value) -> str:
        name, value = self.param.name, plain(value)
        if not is_number(value):
            return f"{name} = {value!r} is not a number"
        if not self.low <= value <= self.high:
            return f"{name} = {value} is outside {short(self.low)} to {short(self.high)}"
        return ""


class Real(Number):
    """A float, on a linear or logarithmic scale."""

    def __init__(self, param: Param) -> None:
        super().__init__(param)
        # Decimals follow from the largest value of the axis, so that values near 0 are round too.
        largest = 1.0 if param.log else max(abs(self.low), abs(self.high))
        self._width = math.log(self.high / self.low) if param.log else self.high - self.low
        self._shared = max(0, round(math.log10(largest / self._width)))  # leading digits that all values share
        self._decimals = DIGITS - 1 - math.floor(math.log10(largest)) + self._shared

    def decode(self, u: float) -> Value:
        u = min(max(u, 0.0), 1.0)
        if self.param.log:
            value = float(f"{self.low * (self.high / self.low) ** u:.{DIGITS + self._shared}g}")
        else:
            value = round(self.low + u * self._width, self._decimals)
        return min(max(value, self.low), self.high) + 0.0  # no minus zero

    def encode(self, value: Value) -> float:
        number = float(value)
        if self.param.log:
            return min(max(math.log(number / self.low) / self._width, 0.0), 1.0)
        return (number - self.low) / self._width

    def exact(self, value: Value) -> Value:
        return float(value)

    def canonical(self, value: Value) -> Value:
        return float(f"{float(value):.{KEY_DIGITS + self._shared}g}")


class Whole(Number):
    """Whole numbers, or powers of two by their exponent."""

    def __init__(self, param: Param) -> None:
        super().__init__(param)
        low, high = self.low, self.high
        if param.power_of_two:
            low, high = math.log2(max(low, 1.0)) - 1e-9, math.log2(high) + 1e-9
        self.first, self.last = math.ceil(low), math.floor(high)
        self.count: int = self.last - self.first + 1
        self.ends = (0, self.count - 1) if self.indexed else (self.first, self.last)  # as ``outward`` has them
        scaled = param.log and not param.power_of_two
        self._edges = (math.log(self.first - 0.5), math.log(self.last + 0.5)) if scaled else None

    def decode(self, u: float) -> Value:
        if self._edges is None:
            step = self.first + _bin(u, self.count)
        else:
            low, high = self._edges
            step = min(max(round(math.exp(low + u * (high - low))), self.first), self.last)
        return int(2**step) if self.param.power_of_two else step

    def encode(self, value: Value) -> float:
        step = round(math.log2(float(value))) if self.param.power_of_two else int(value)
        if self._edges is None:
            return (step - self.first + 0.5) / self.count
        low, high = self._edges
        return (math.log(step) - low) / (high - low)

    def problem(self, value: Value) -> str:
        if problem := super().problem(value):
            return problem
        number = float(value)
        if self.param.power_of_two:
            return "" if math.log2(number) % 1 == 0 else f"{self.param.name} = {value} is not a power of two"
        return "" if number == int(number) else f"{self.param.name} = {value} is not a whole number"

    def exact(self, value: Value) -> Value:
        return int(value)


def axis_of(param: Param) -> Axis:
    """The axis of a parameter in which ``fault`` finds no error."""
    if param.kind == "categorical":
        return Choices(param)
    return Whole(param) if param.kind == "int" else Real(param)


def fault(p: Param) -> tuple[str, str] | None:
    """The key of target.toml that makes ``p`` unusable, and the reason; None for a usable parameter."""
    if p.kind not in ("int", "float", "categorical"):
        return "kind", f"{p.kind!r} is not int, float or categorical"
    for key, flag in (("log", p.log), ("power_of_two", p.power_of_two)):
        if not isinstance(flag, bool):
            return key, "must be true or false"
    if p.kind == "categorical":
        typed = {(type(c), c) for c in p.choices if isinstance(c, (bool, int, float, str))}
        if len(typed) < max(2, len(p.choices)):
            return "choices", "needs choices, two or more different values"
    elif problem := _bounds_fault(p):
        return problem
    wrong = axis_of(p).problem(p.default)
    return ("default", wrong) if wrong else None


def _bounds_fault(p: Param) -> tuple[str, str] | None:
    low, high = p.low, p.high
    if not is_number(low) or not is_number(high):
        return "high" if is_number(low) else "low", "has no bounds; set low and high to numbers"
    if not low < high:
        return "low", f"low = {short(low)} is not below high = {short(high)}"
    if (p.log or p.power_of_two) and low <= 0:
        return "low", f"{'log' if p.log else 'power_of_two'} = true needs low above 0, not {short(low)}"
    if p.power_of_two and p.kind != "int":
        return "power_of_two", "is not a whole number"
    count = axis_of(p).count
    if count is not None and count < 2:
        what = "power of two" if p.power_of_two else "whole number"
        return "low", f"less than two values ({what}) from {short(low)} to {short(high)}"
    return None


def plain(value: Value) -> Value:
    """A numpy scalar as a Python scalar."""
    return value.item() if isinstance(value, np.generic) else value


def short(number: float) -> str:
    """A bound without superfluous digits: ``2097152``, ``0.0005``."""
    return str(int(number)) if number == int(number) and abs(number) < 1e15 else f"{number:g}"


def _bin(u: float, count: int) -> int:
    return min(max(int(u * count), 0), count - 1)
