"""The search space: the hyperparameter block of a source file with the bounds of its target.toml.

Powers of two, logarithms, whole numbers and constraints are inside the mapping from the unit cube, so that every point
of the cube is a valid configuration and the point that is told is the point that was evaluated.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from agent.errors import UsageError
from agent.space.axes import Axis, Choices, axis_of, fault
from agent.space.block import END, START, literal, read_block, render_block
from agent.space.constraints import Constraint, parse_constraint
from agent.types import Param, Value

Unit = NDArray[np.float64]  # [dimensions], each coordinate in [0, 1]
Key = tuple[Value, ...]

_ROUNDS = 8  # of repairing one constraint after the other
_BISECTIONS = 12
_SATISFYING_DRAWS = 2000


class SearchSpace:
    """Parameters in the order of target.toml, and what must hold between them. Never changes.

    Args:
        params: as ``agent.space.spec`` reads them; the defaults are the configuration that is known to work.
        constraints: comparisons such as ``"TOTAL_BATCH_SIZE >= DEVICE_BATCH_SIZE * 2048"``.
        path: the file with the block, for messages.
        block: the lines of the block with its markers, as they are shown to a model; default one line a parameter.

    Raises:
        UsageError: a parameter without sense, or a constraint that cannot be read, that nothing satisfies, or that the
            defaults break.
    """

    def __init__(
        self,
        params: Iterable[Param],
        constraints: Iterable[str] = (),
        path: str = "train.py",
        where: str = "[search] constraints",
        block: str = "",
    ) -> None:
        self.params = tuple(params)
        self.path = path
        self.names = tuple(p.name for p in self.params)
        self._check_params()
        lines = (f"{p.name} = {literal(p.default)}" for p in self.params)
        self.block = block or "\n".join([START, *lines, END]) + "\n"
        self.axes: tuple[Axis, ...] = tuple(axis_of(p) for p in self.params)
        if isinstance(constraints, str):
            raise UsageError(f'{where}: a list of comparisons, such as ["A >= B * 2"]')
        try:
            self.constraints: tuple[Constraint, ...] = tuple(parse_constraint(text, self.names) for text in constraints)
        except ValueError as error:
            raise UsageError(f"{where}: {error}") from None
        self._home = self.defaults
        self._check_constraints(where)

    @classmethod
    def from_toml(cls, path: Path | str, source: str | None = None) -> SearchSpace:
        """Read a target.toml (or the folder that holds one); the block comes from the editable file beside it.

        ``source`` stands for the text of that file, for a version that is not on the disk.

        Raises:
            UsageError: names file, line and key.
        """
        from agent.space.spec import load

        return load(Path(path), source)

    @classmethod
    def from_parts(
        cls, table: Mapping[str, Any], source: str, where: str = "target.toml", path: str = "train.py"
    ) -> SearchSpace:
        """From the table of a parsed target.toml and the text of the editable file. Raises UsageError."""
        from agent.space.spec import build

        return build(table, source, where, path)

    @property
    def dimensions(self) -> int:
        return len(self.params)

    @property
    def defaults(self) -> dict[str, Value]:
        return {p.name: p.default for p in self.params}

    @property
    def categorical(self) -> tuple[int, ...]:
        """Indices of the parameters whose values have no order."""
        return tuple(i for i, axis in enumerate(self.axes) if isinstance(axis, Choices))

    @property
    def size(self) -> float:
        """Number of configurations before constraints; infinite with a float in it."""
        return math.prod(math.inf if axis.count is None else axis.count for axis in self.axes)

    def every(self) -> Iterator[dict[str, Value]]:
        """All valid configurations of a finite space, in order."""
        for values in product(*(self._all(axis) for axis in self.axes)):
            params = dict(zip(self.names, values, strict=True))
            if self._holds(params):
                yield params

    def read(self, source: str) -> dict[str, Value]:
        """The values that the block of ``source`` holds now. Raises UsageError: a parameter is gone or renamed."""
        return {name: entry.value for name, entry in read_block(source, self.path, names=self.names).items()}

    def render(self, source: str, params: Mapping[str, Value]) -> str:
        """``source`` with the block set to ``params``: one changed line for each value that differs.

        Raises:
            UsageError: a value that is not one of its parameter, or a block without it.
        """
        axes = dict(zip(self.names, self.axes, strict=True))
        if wrong := [problem for n, v in params.items() if n in axes and (problem := axes[n].problem(v))]:
            raise UsageError(f"{self.path}: {'; '.join(wrong)}")
        return render_block(source, self.exact(params), self.path)

    def exact(self, params: Mapping[str, Value]) -> dict[str, Value]:
        """Valid values in the kind of their parameters: 8 for 8.0 where a number is whole, no scalars of numpy."""
        axes = dict(zip(self.names, self.axes, strict=True))
        return {name: axes[name].exact(value) if name in axes else value for name, value in params.items()}

    def key(self, params: Mapping[str, Value]) -> Key:
        """Equal for configurations that are the same experiment."""
        return tuple(axis.same(params[name]) for name, axis in zip(self.names, self.axes, strict=True))

    def valid(self, params: Mapping[str, Value]) -> list[str]:
        """What is wrong with a configuration, in words; [] when nothing is."""
        wrong = [f"{name} is not a hyperparameter of this target" for name in params if name not in self.names]
        for name, axis in zip(self.names, self.axes, strict=True):
            problem = axis.problem(params[name]) if name in params else f"{name} is missing"
            wrong += [problem] if problem else []
        return wrong or [f"`{c.text}` does not hold" for c in self.constraints if not c.holds(params)]

    def repair(self, params: Mapping[str, Value]) -> dict[str, Value]:
        """A valid configuration near ``params``; a valid one is left alone, a missing value becomes its default."""
        filled = self.defaults | {name: params[name] for name in self.names if name in params}
        return self._satisfy({n: a.nearest(filled[n]) for n, a in zip(self.names, self.axes, strict=True)})

    def from_unit(self, x: ArrayLike) -> dict[str, Value]:
        """The valid configuration at a point [dimensions] of the unit cube; points outside are moved to its border."""
        point = np.clip(np.asarray(x, dtype=float), 0.0, 1.0).tolist()
        return self._satisfy({n: a.decode(u) for n, a, u in zip(self.names, self.axes, point, strict=True)})

    def to_unit(self, params: Mapping[str, Value]) -> Unit:
        """The point [dimensions] of a configuration; ``from_unit`` leads back to it."""
        return np.array([a.encode(params[n]) for n, a in zip(self.names, self.axes, strict=True)])

    # --- constraints ------------------------------------------------------------------------------------------------

    def _check_params(self) -> None:
        if not self.params:
            raise UsageError("a search space with no hyperparameters")
        for i, p in enumerate(self.params):
            if p.name in self.names[:i]:
                raise UsageError(f"{p.name} stands twice")
            if problem := fault(p):
                key, text = problem
                raise UsageError(f"{p.name}: {key}: {text}")

    def _holds(self, params: Mapping[str, Value]) -> bool:
        return all(constraint.holds(params) for constraint in self.constraints)

    def _satisfy(self, params: dict[str, Value]) -> dict[str, Value]:
        """Move as few parameters as little as possible until every constraint holds; in the end, towards home."""
        if self._holds(params):
            return params
        moved = dict(params)
        for _ in range(_ROUNDS):
            broken = next((c for c in self.constraints if not c.holds(moved)), None)
            if broken is None:
                return moved
            step = self._smallest_move(moved, broken)
            if step is None:
                break
            moved |= step
        return self._towards_home(params)

    def _smallest_move(self, params: Mapping[str, Value], broken: Constraint) -> dict[str, Value] | None:
        """The change of one parameter, smallest in the cube, with which ``broken`` holds."""
        best: tuple[bool, float, dict[str, Value]] | None = None
        for name in broken.names:
            axis = self.axes[self.names.index(name)]
            at = axis.encode(params[name])
            options = sorted(axis.values(), key=lambda value: abs(axis.encode(value) - at))
            value = next((v for v in options if broken.holds({**params, name: v})), None)
            if value is None:
                continue
            value = self._closer(params, broken, name, axis, value)
            rank = (not self._holds({**params, name: value}), abs(axis.encode(value) - at))
            if best is None or rank < best[:2]:
                best = (*rank, {name: value})
        return best[2] if best else None

    def _closer(self, params: Mapping[str, Value], broken: Constraint, name: str, axis: Axis, good: Value) -> Value:
        """On an axis of which only a grid was tried: bisect between the value as it is and the one that is good."""
        if axis.count is not None and axis.count == len(axis.values()):
            return good
        bad = axis.encode(params[name])
        for _ in range(_BISECTIONS):
            middle = (bad + axis.encode(good)) / 2
            value = axis.decode(middle)
            if broken.holds({**params, name: value}):
                good = value
            else:
                bad = middle
        return good

    def _towards_home(self, params: Mapping[str, Value]) -> dict[str, Value]:
        start, home = self.to_unit(params), self.to_unit(self._home)
        for share in np.linspace(0.1, 0.9, 9):
            point = (start + share * (home - start)).tolist()
            moved = {n: a.decode(u) for n, a, u in zip(self.names, self.axes, point, strict=True)}
            if self._holds(moved):
                return moved
        return dict(self._home)

    def _check_constraints(self, where: str) -> None:
        broken = [c for c in self.constraints if not c.holds(self._home)]
        if not broken:
            return
        random = np.random.default_rng(0)
        for _ in range(_SATISFYING_DRAWS):
            moved = {
                n: a.decode(u) for n, a, u in zip(self.names, self.axes, random.random(self.dimensions), strict=True)
            }
            for _ in range(_ROUNDS):
                fault = next((c for c in self.constraints if not c.holds(moved)), None)
                step = self._smallest_move(moved, fault) if fault else None
                if step is None:
                    break
                moved |= step
            if self._holds(moved):
                values = ", ".join(f"{n} = {self._home[n]}" for n in broken[0].names)
                raise UsageError(f"{where}: the defaults break `{broken[0].text}` ({values} in {self.path})")
        texts = " and ".join(f"`{c.text}`" for c in broken)
        raise UsageError(f"{where}: nothing within the bounds satisfies {texts}")

    @staticmethod
    def _all(axis: Axis) -> Sequence[Value]:
        assert axis.count is not None, "a float axis has no end of values"
        return list(dict.fromkeys(axis.decode((i + 0.5) / axis.count) for i in range(axis.count)))
