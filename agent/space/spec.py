"""Reads ``[[hyperparameters]]`` of a target.toml together with the block of the editable file into a search space.

Kind and default come from the block, bounds from the table. A whole number whose bounds are written as floats
(``low = 0.0``) is a float that happens to be whole. Messages name file, line and key.
"""

from __future__ import annotations

import difflib
import math
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agent.errors import UsageError
from agent.space.axes import fault
from agent.space.block import Entry, block_text, read_block
from agent.space.space import SearchSpace
from agent.types import Param, ParamKind, Value

KEYS = ("name", "kind", "low", "high", "log", "power_of_two", "choices")
_HEADER = re.compile(r"^\s*\[\[\s*hyperparameters\s*\]\]", re.MULTILINE)


class Place:
    """Where things stand in a target.toml, for messages; without its text, only the names of the keys."""

    def __init__(self, path: str, text: str = "") -> None:
        self.path = path
        lines = text.splitlines()
        self._lines = lines
        self._rows = [i for i, line in enumerate(lines) if _HEADER.match(line)]

    def row(self, index: int, key: str = "") -> str:
        """Line of a key in the ``index``-th ``[[hyperparameters]]``, or of its header."""
        label = f"[[hyperparameters]] number {index + 1}" + (f", key {key}" if key else "")
        if index >= len(self._rows):
            return f"{self.path}: {label}"
        first = self._rows[index]
        following = (i for i in range(first + 1, len(self._lines)) if self._lines[i].lstrip().startswith("["))
        return f"{self.path}:{self._find(key, first, next(following, len(self._lines)), first) + 1}: {label}"

    def search(self, key: str) -> str:
        line = self._find(key, 0, len(self._lines), -1)
        return f"{self.path}{f':{line + 1}' if line >= 0 else ''}: [search] {key}"

    def _find(self, key: str, start: int, stop: int, otherwise: int) -> int:
        wanted = re.compile(rf"\s*[\"']?{re.escape(key)}[\"']?\s*=")
        return next((i for i in range(start, stop) if key and wanted.match(self._lines[i])), otherwise)


def load(path: Path, source: str | None = None) -> SearchSpace:
    """``SearchSpace.from_toml``."""
    path = path / "target.toml" if path.is_dir() else path
    try:
        text = path.read_text(encoding="utf-8")
        table = tomllib.loads(text)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: not valid TOML: {error}") from None
    target = table.get("target", {})
    editable = target.get("editable", ["train.py"]) if isinstance(target, dict) else ["train.py"]
    name = str(editable[0]) if isinstance(editable, list) and editable else "train.py"
    if source is None:
        try:
            source = (path.parent / name).read_text(encoding="utf-8")
        except OSError as error:
            raise UsageError(f"{path.parent / name}: {error.strerror or error}; {path} lists it as editable") from None
        except UnicodeDecodeError as error:
            raise UsageError(f"{path.parent / name}: not UTF-8 text: {error}") from None
    return build(table, source, str(path), name, text)


def build(table: Mapping[str, Any], source: str, where: str, path: str, text: str = "") -> SearchSpace:
    """``SearchSpace.from_parts``; ``text`` is that of the target.toml, for line numbers."""
    place = Place(where, text)
    rows = table.get("hyperparameters", [])
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise UsageError(
            f"{where}: no [[hyperparameters]]; name each value that may change, and its bounds (low = 4, high = 24)"
        )
    names = [_name(row, index, place) for index, row in enumerate(rows)]
    for index, name in enumerate(names):
        if name in names[:index]:
            raise UsageError(f"{place.row(index, 'name')}: {name} stands twice")
    entries = read_block(source, path, names=names)
    _check_all_bounded(source, path, where, names)
    params = [_param(row, entries[row["name"]], index, place, path) for index, row in enumerate(rows)]
    search = table.get("search", {})
    for key in search if isinstance(search, dict) else []:
        if key != "constraints":
            near = "; did you mean constraints?" if difflib.get_close_matches(key, ["constraints"]) else ""
            raise UsageError(f"{place.search(key)}: unknown key{near}")
    constraints = search.get("constraints", []) if isinstance(search, dict) else []
    if not isinstance(constraints, list) or not all(isinstance(item, str) for item in constraints):
        raise UsageError(f'{place.search("constraints")}: a list of comparisons, such as ["A >= B * 2"]')
    return SearchSpace(params, constraints, path, place.search("constraints"), block_text(source, path))


def _check_all_bounded(source: str, path: str, where: str, names: list[str]) -> None:
    """Every line of a marked block is a value that may change, so every line needs bounds."""
    try:
        block = read_block(source, path)
    except UsageError:  # no markers: only the named assignments count
        return
    for name, entry in block.items():
        if name not in names:
            raise UsageError(
                f"{path}:{entry.line}: {name} stands in the hyperparameter block and has no bounds; add it to {where} "
                f"as [[hyperparameters]] with low and high, or move the line out of the block"
            )


def _name(row: Mapping[str, Any], index: int, place: Place) -> str:
    name = row.get("name")
    if not isinstance(name, str) or not name.isidentifier():
        raise UsageError(f"{place.row(index, 'name')}: the name of a constant in the block is needed")
    for key in row:
        if key not in KEYS:
            near = difflib.get_close_matches(key, KEYS, n=1)
            hint = f"did you mean {near[0]}?" if near else f"valid are {', '.join(KEYS)}"
            raise UsageError(f"{place.row(index, key)}: unknown key in {name}; {hint}")
    return name


def _param(row: Mapping[str, Any], entry: Entry, index: int, place: Place, path: str) -> Param:
    kind = _kind(row, entry, index, place)
    if kind == "categorical":
        param = _choice(row, entry, index, place)
    else:
        param = _number(row, entry, kind, index, place)
    if problem := fault(param):
        key, text = problem
        if key == "default":
            raise UsageError(f"{path}:{entry.line}: the default breaks its bounds in {place.row(index)}: {text}")
        raise UsageError(f"{place.row(index, key)}: {entry.name}: {text}")
    return param


def _kind(row: Mapping[str, Any], entry: Entry, index: int, place: Place) -> ParamKind:
    kind = row.get("kind")
    if kind not in (None, "int", "float", "categorical"):
        raise UsageError(f"{place.row(index, 'kind')}: {kind!r} is not int, float or categorical")
    if "choices" in row or isinstance(entry.value, (bool, str)):
        if kind not in (None, "categorical"):
            raise UsageError(f"{place.row(index, 'kind')}: {entry.name} has choices, so it is categorical")
        return "categorical"
    if kind == "categorical":
        raise UsageError(f"{place.row(index, 'kind')}: {entry.name} needs choices, a list of values")
    if kind is not None:
        return "int" if kind == "int" else "float"
    whole = isinstance(entry.value, int) and not any(isinstance(row.get(key), float) for key in ("low", "high"))
    return "int" if whole else "float"


def _choice(row: Mapping[str, Any], entry: Entry, index: int, place: Place) -> Param:
    choices = row.get("choices", [False, True] if isinstance(entry.value, bool) else None)
    fine = isinstance(choices, list) and all(isinstance(c, (bool, int, float, str)) for c in choices)
    if not fine or choices is None or len({(type(c), c) for c in choices}) < max(2, len(choices)):
        raise UsageError(f"{place.row(index, 'choices')}: {entry.name} needs choices, two or more different values")
    for key in ("low", "high", "log", "power_of_two"):
        if key in row:
            raise UsageError(f"{place.row(index, key)}: {entry.name} has choices and cannot have {key}")
    return Param(entry.name, "categorical", entry.value, choices=tuple(choices))


def _number(row: Mapping[str, Any], entry: Entry, kind: ParamKind, index: int, place: Place) -> Param:
    for key in ("low", "high"):
        bound = row.get(key)
        if isinstance(bound, bool) or not isinstance(bound, (int, float)) or not math.isfinite(bound):
            raise UsageError(f"{place.row(index, key)}: {entry.name} has no bounds; it needs the numbers low and high")
    for key in ("log", "power_of_two"):
        if not isinstance(row.get(key, False), bool):
            raise UsageError(f"{place.row(index, key)}: {entry.name}: true or false")
    low, high = float(row["low"]), float(row["high"])
    log, power = bool(row.get("log", False)), bool(row.get("power_of_two", False))
    default: Value = entry.value
    if kind == "int" and isinstance(default, float) and default == int(default):
        default = int(default)
    return Param(entry.name, kind, default, low, high, log, power)
