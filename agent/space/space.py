"""The search space: the hyperparameter block of a source file with the bounds of its target.toml.

Logarithms, whole numbers, powers of two and constraints are part of the mapping from the unit cube. Every point of the
cube is a valid configuration, and the optimiser receives exactly the point that was evaluated.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from agent.errors import UsageError
from agent.space.axes import Axis, Choices, axis_of, fault
from agent.space.block import END, START, literal, read_block, render_block
from agent.space.constraints import Constraint, parse_constraint
from agent.types import Param, Value

Unit = NDArray[np.float64]  # [dimensions], each coordinate in [0, 1]
Key = tuple[Value, ...]
Params = Mapping[str, Value]  # a configuration

_ROUNDS = 8  # repairs of one constraint after another
_BISECTIONS = 12
_SATISFYING_DRAWS = 2000  # random starts before constraints count as contradictory


class SearchSpace:
    """Parameters in the order of target.toml, and the constraints between them. Immutable.

    Args:
        params: their defaults are the configuration that is known to work.
        constraints: comparisons such as ``"TOTAL_BATCH_SIZE >= DEVICE_BATCH_SIZE * 2048"``.
        path: the file with the block, for messages.
        where: the place of the constraints, for messages.
        block: lines of the block with its markers, as a model sees them; default one line per parameter.

    Raises:
        UsageError: a parameter is unusable, or a constraint cannot be parsed, contradicts the defaults, or holds for
            no configuration.
    """

    def __init__(
        self,
        params: Iterable[Param],
        constraints: Sequence[str] = (),
        path: str = "train.py",
        where: str = "[search] constraints",
        block: str = "",
    ) -> None:
        self.params = tuple(params)
        self.path = path
        self.names = tuple(p.name for p in self.params)
        if not self.params:
            raise UsageError("a search space with no hyperparameters")
        for i, p in enumerate(self.params):
            if p.name in self.names[:i]:
                raise UsageError(f"{p.name} is defined twice")
            if problem := fault(p):
                raise UsageError(f"{p.name}: {': '.join(problem)}")
        lines = (f"{p.name} = {literal(p.default)}" for p in self.params)
        self.block = block or "\n".join([START, *lines, END]) + "\n"
        self.axes: Mapping[str, Axis] = {p.name: axis_of(p) for p in self.params}
        self.defaults = {p.name: p.default for p in self.params}
        self.dimensions = len(self.params)
        self.categorical = tuple(i for i, axis in enumerate(self.axes.values()) if isinstance(axis, Choices))
        # Number of configurations before constraints; infinite if a parameter is a float.
        self.size = math.prod(math.inf if axis.count is None else axis.count for axis in self.axes.values())
        if not isinstance(constraints, (list, tuple)) or not all(isinstance(text, str) for text in constraints):
            raise UsageError(f'{where}: a list of comparisons, such as ["A >= B * 2"]')
        try:
            self.constraints: tuple[Constraint, ...] = tuple(parse_constraint(text, self.names) for text in constraints)
        except ValueError as error:
            raise UsageError(f"{where}: {error}") from None
        self._check_constraints(where)

    @classmethod
    def from_toml(cls, path: Path | str, source: str | None = None) -> SearchSpace:
        """Read a target.toml and the block of the editable file beside it.

        Args:
            path: the target.toml, or the folder that holds it.
            source: text of the editable file; default the file on disk.

        Raises:
            UsageError: names file, line and key.
        """
        from agent.space.spec import load

        return load(Path(path), source)

    def every(self) -> Iterator[dict[str, Value]]:
        """All valid configurations of a finite space, in lexicographic order."""
        for values in product(*(axis.values(math.inf) for axis in self.axes.values())):
            params = dict(zip(self.names, values, strict=True))
            if self._broken(params) is None:
                yield params

    def read(self, source: str) -> dict[str, Value]:
        """The values in the block of ``source``. Raises UsageError: a parameter is missing or renamed."""
        return {name: entry.value for name, entry in read_block(source, self.path, names=self.names).items()}

    def render(self, source: str, params: Params) -> str:
        """``source`` with the block set to ``params``: one changed line for each value that differs.

        Raises:
            UsageError: a value is not valid for its parameter, or the block lacks a parameter.
        """
        problems = (self.axes[n].problem(v) for n, v in params.items() if n in self.axes)
        if wrong := "; ".join(filter(None, problems)):
            raise UsageError(f"{self.path}: {wrong}")
        return render_block(source, self.exact(params), self.path)

    def exact(self, params: Params) -> dict[str, Value]:
        """Valid values in the Python types of their parameters: 8 for 8.0, no numpy scalars."""
        return {name: self.axes[name].exact(value) if name in self.axes else value for name, value in params.items()}

    def key(self, params: Params) -> Key:
        """Equal for two mappings iff they are the same configuration."""
        return tuple(axis.canonical(params[name]) for name, axis in self.axes.items())

    def valid(self, params: Params) -> list[str]:
        """The problems of a configuration; [] if it is valid."""
        wrong = [f"{name} is not a hyperparameter of this target" for name in params if name not in self.axes]
        for name, axis in self.axes.items():
            problem = axis.problem(params[name]) if name in params else f"{name} is missing"
            wrong += [problem] if problem else []
        return wrong or [f"`{c.text}` does not hold" for c in self.constraints if not c.holds(params)]

    def from_unit(self, x: ArrayLike) -> dict[str, Value]:
        """The valid configuration at a point [dimensions] of the unit cube; points outside are clipped to it."""
        return self._satisfied(self._decode(np.clip(np.asarray(x, dtype=float), 0.0, 1.0)))

    def to_unit(self, params: Params) -> Unit:
        """The point [dimensions] of a configuration: the inverse of ``from_unit``."""
        return np.array([axis.encode(params[name]) for name, axis in self.axes.items()])

    def inward(self, found: Params) -> dict[str, Value]:
        """The valid configuration for values as an optimiser library has them, see ``Axis.outward``."""
        return self._satisfied({name: axis.inward(found[name]) for name, axis in self.axes.items()})

    def _decode(self, x: Unit) -> dict[str, Value]:
        return {name: axis.decode(u) for (name, axis), u in zip(self.axes.items(), x.tolist(), strict=True)}

    # --- constraints ------------------------------------------------------------------------------------------------

    def _broken(self, params: Params) -> Constraint | None:
        return next((c for c in self.constraints if not c.holds(params)), None)

    def _satisfied(self, params: dict[str, Value]) -> dict[str, Value]:
        """``params`` with few parameters changed by little until every constraint holds; at worst the defaults."""
        moved = self._repaired(params)
        if moved is not None:
            return moved
        start, home = self.to_unit(params), self.to_unit(self.defaults)
        line = (self._decode(start + share * (home - start)) for share in np.linspace(0.1, 0.9, 9))
        return next((moved for moved in line if self._broken(moved) is None), dict(self.defaults))

    def _repaired(self, params: dict[str, Value]) -> dict[str, Value] | None:
        """``params`` after at most ``_ROUNDS`` repairs; None if a constraint is still broken."""
        for _ in range(_ROUNDS):
            broken = self._broken(params)
            step = self._smallest_move(params, broken) if broken else None
            if step is None:
                return None if broken else params
            params = params | step
        return params if self._broken(params) is None else None

    def _smallest_move(self, params: Params, broken: Constraint) -> dict[str, Value] | None:
        """The smallest change of one parameter, by distance in the cube, with which ``broken`` holds."""
        best: tuple[bool, float, dict[str, Value]] | None = None
        for name in broken.names:
            axis = self.axes[name]
            at = axis.encode(params[name])
            options = sorted(axis.values(), key=lambda value: abs(axis.encode(value) - at))
            value = next((v for v in options if broken.holds({**params, name: v})), None)
            if value is None:
                continue
            if axis.count is None or axis.count != len(options):  # only a grid was searched
                value = self._closer(params, broken, axis, value)
            rank = (self._broken({**params, name: value}) is not None, abs(axis.encode(value) - at))
            if best is None or rank < best[:2]:
                best = (*rank, {name: value})
        return best[2] if best else None

    @staticmethod
    def _closer(params: Params, broken: Constraint, axis: Axis, good: Value) -> Value:
        """Bisect between the present value and ``good``, which satisfies ``broken``."""
        name = axis.param.name
        bad = axis.encode(params[name])
        for _ in range(_BISECTIONS):
            middle = (bad + axis.encode(good)) / 2
            value = axis.decode(middle)
            if broken.holds({**params, name: value}):
                good = value
            else:
                bad = middle
        return good

    def _check_constraints(self, where: str) -> None:
        broken = [c for c in self.constraints if not c.holds(self.defaults)]
        if not broken:
            return
        random = np.random.default_rng(0)
        draws = (random.random(self.dimensions) for _ in range(_SATISFYING_DRAWS))
        if any(self._repaired(self._decode(x)) is not None for x in draws):
            values = ", ".join(f"{n} = {self.defaults[n]}" for n in broken[0].names)
            raise UsageError(f"{where}: the defaults break `{broken[0].text}` ({values} in {self.path})")
        texts = " and ".join(f"`{c.text}`" for c in broken)
        raise UsageError(f"{where}: nothing within the bounds satisfies {texts}")
