"""One axis of the unit cube for each hyperparameter. Logarithms, whole numbers, powers of two, choices live here.

An axis with a finite number of values gives each the same share of [0, 1], in the order of the values; on a
logarithmic axis of whole numbers the shares follow the logarithm. A float is rounded to four significant digits on its
way out of the cube (more where the bounds have their first digits in common), so that the diff is free of noise and the
point that is told is the point that was evaluated.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np

from agent.types import Param, Value

DIGITS = 4
SAME = 6  # significant digits by which two floats are the same value
GRID = 65  # values of a float axis that a repair looks at


class Axis(ABC):
    """Maps [0, 1] onto the values of ``param`` and back. ``count`` is their number, None for a float."""

    count: int | None = None

    def __init__(self, param: Param) -> None:
        self.param = param

    @abstractmethod
    def decode(self, u: float) -> Value:
        """The value at ``u`` in [0, 1]."""

    @abstractmethod
    def encode(self, value: Value) -> float:
        """The place of a value, in the middle of its share; a value out of bounds is moved to the nearest end."""

    @abstractmethod
    def problem(self, value: Value) -> str:
        """Why ``value`` is not one of this axis, in words; empty when it is."""

    @abstractmethod
    def exact(self, value: Value) -> Value:
        """A value of this axis in the kind of its parameter: 8 for 8.0 where a number is whole, no scalar of numpy."""

    def same(self, value: Value) -> Value:
        """Equal for values of this axis that are the same experiment."""
        return self.exact(value)

    def nearest(self, value: Value) -> Value:
        """``value`` itself if it is one of this axis, else one close to it."""
        return value if not self.problem(value) else self.decode(self.encode(value))

    def values(self) -> Sequence[Value]:
        """All values, or ``GRID`` of them from end to end."""
        size = self.count if self.count is not None and self.count <= 4 * GRID else GRID
        return list(dict.fromkeys(self.decode((i + 0.5) / size if self.count == size else i / (size - 1))
                                  for i in range(size)))  # fmt: skip


class Choices(Axis):
    def __init__(self, param: Param) -> None:
        super().__init__(param)
        self.count = len(param.choices)

    def decode(self, u: float) -> Value:
        return self.param.choices[_bin(u, len(self.param.choices))]

    def encode(self, value: Value) -> float:
        choices = self.param.choices
        index = self._index(value)
        return ((choices.index(self.param.default) if index is None else index) + 0.5) / len(choices)

    def problem(self, value: Value) -> str:
        if self._index(value) is not None:
            return ""
        return f"{self.param.name} = {value!r} is not one of {', '.join(map(repr, self.param.choices))}"

    def exact(self, value: Value) -> Value:
        index = self._index(value)
        return plain(value) if index is None else self.param.choices[index]

    def _index(self, value: Value) -> int | None:
        value = plain(value)
        if not isinstance(value, (bool, int, float, str)):
            return None
        same = (
            i for i, c in enumerate(self.param.choices) if c == value and isinstance(c, bool) == isinstance(value, bool)
        )
        return next(same, None)


class Number(Axis):
    """What numbers have in common: bounds, which are inclusive."""

    def __init__(self, param: Param) -> None:
        super().__init__(param)
        assert param.low is not None
        assert param.high is not None
        self.low, self.high = float(param.low), float(param.high)

    def number(self, value: Value) -> float:
        """``value`` moved into the bounds; the default for what is no number at all."""
        number = plain(value)
        if not _is_number(number):
            number = self.param.default
        return float(min(max(number, self.low), self.high))

    def problem(self, value: Value) -> str:
        name, value = self.param.name, plain(value)
        if isinstance(value, str) or not _is_number(value):
            return f"{name} = {value!r} is not a number"
        if not self.low <= value <= self.high:
            return f"{name} = {value} is outside {short(self.low)} to {short(self.high)}"
        return ""


class Real(Number):
    def __init__(self, param: Param) -> None:
        super().__init__(param)
        # Digits count from the largest value of the axis, so that values near 0 are round too.
        largest = 1.0 if param.log else max(abs(self.low), abs(self.high))
        width = math.log(self.high / self.low) if param.log else self.high - self.low
        self._more = max(0, round(math.log10(largest / width)))  # digits that all values of the axis have in common
        self._decimals = DIGITS - 1 - math.floor(math.log10(largest)) + self._more

    def decode(self, u: float) -> Value:
        u = min(max(u, 0.0), 1.0)
        if self.param.log:
            value = float(f"{self.low * (self.high / self.low) ** u:.{DIGITS + self._more}g}")
        else:
            value = round(self.low + u * (self.high - self.low), self._decimals)
        return min(max(value, self.low), self.high) + 0.0  # no minus zero

    def encode(self, value: Value) -> float:
        number = self.number(value)
        if self.param.log:
            return min(max(math.log(number / self.low) / math.log(self.high / self.low), 0.0), 1.0)
        return (number - self.low) / (self.high - self.low)

    def exact(self, value: Value) -> Value:
        return float(value)

    def same(self, value: Value) -> Value:
        return float(f"{float(value):.{SAME + self._more}g}")


class Integer(Number):
    def __init__(self, param: Param) -> None:
        super().__init__(param)
        self.first, self.last = math.ceil(self.low), math.floor(self.high)
        self.count = self.last - self.first + 1
        self._edges = (math.log(self.first - 0.5), math.log(self.last + 0.5)) if param.log else None

    def decode(self, u: float) -> Value:
        if self._edges is None:
            return self.first + _bin(u, self.last - self.first + 1)
        low, high = self._edges
        return min(max(round(math.exp(low + u * (high - low))), self.first), self.last)

    def exact(self, value: Value) -> Value:
        return int(value)

    def encode(self, value: Value) -> float:
        number = min(max(round(self.number(value)), self.first), self.last)
        if self._edges is None:
            return (number - self.first + 0.5) / (self.last - self.first + 1)
        low, high = self._edges
        return (math.log(number) - low) / (high - low)

    def problem(self, value: Value) -> str:
        problem = super().problem(value)
        return problem or ("" if plain(value) == int(value) else f"{self.param.name} = {value} is not a whole number")


class PowerOfTwo(Number):
    def __init__(self, param: Param) -> None:
        super().__init__(param)
        self.first, self.last = math.ceil(math.log2(self.low) - 1e-9), math.floor(math.log2(self.high) + 1e-9)
        self.count = self.last - self.first + 1

    def decode(self, u: float) -> Value:
        return int(2 ** (self.first + _bin(u, self.last - self.first + 1)))

    def exact(self, value: Value) -> Value:
        return int(value)

    def encode(self, value: Value) -> float:
        exponent = min(max(round(math.log2(self.number(value))), self.first), self.last)
        return (exponent - self.first + 0.5) / (self.last - self.first + 1)

    def problem(self, value: Value) -> str:
        problem = super().problem(value)
        return problem or ("" if math.log2(value) % 1 == 0 else f"{self.param.name} = {value} is not a power of two")  # type: ignore[arg-type]


def axis_of(param: Param) -> Axis:
    if param.kind == "categorical":
        return Choices(param)
    if param.power_of_two:
        return PowerOfTwo(param)
    return Integer(param) if param.kind == "int" else Real(param)


def fault(p: Param) -> tuple[str, str] | None:
    """The key of a parameter that makes no axis of it, and why; None if it is fine."""
    if p.kind not in ("int", "float", "categorical"):
        return "kind", f"{p.kind!r} is not int, float or categorical"
    if p.kind == "categorical":
        if len({(type(c), c) for c in p.choices}) < max(2, len(p.choices)):
            return "choices", "needs choices, two or more different values"
    elif problem := _bounds_fault(p):
        return problem
    wrong = axis_of(p).problem(p.default)
    return ("default", wrong) if wrong else None


def _bounds_fault(p: Param) -> tuple[str, str] | None:
    for key, bound in (("low", p.low), ("high", p.high)):
        if not _is_number(bound):
            return key, "has no bounds; it needs the numbers low and high"
    assert p.low is not None
    assert p.high is not None
    if not p.low < p.high:
        return "low", f"low = {short(p.low)} is not below high = {short(p.high)}"
    if (p.log or p.power_of_two) and p.low <= 0:
        return "low", f"{'log' if p.log else 'power_of_two'} = true needs low above 0, not {short(p.low)}"
    if p.power_of_two and p.kind != "int":
        return "power_of_two", "is not a whole number"
    count = axis_of(p).count
    if count is not None and count < 2:
        what = "power of two" if p.power_of_two else "whole number"
        return "low", f"less than two values ({what}) from {short(p.low)} to {short(p.high)}"
    return None


def plain(value: Value) -> Value:
    """A scalar of numpy's as Python's."""
    return value.item() if isinstance(value, np.generic) else value


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and -math.inf < value < math.inf


def short(number: float) -> str:
    """A bound without digits that say nothing: ``2097152``, ``0.0005``."""
    return str(int(number)) if number == int(number) and abs(number) < 1e15 else f"{number:g}"


def _bin(u: float, count: int) -> int:
    return min(max(int(u * count), 0), count - 1)
