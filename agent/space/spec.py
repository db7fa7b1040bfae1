"""Build a search space from ``[[hyperparameters]]`` of a target.toml and the block of the editable file.

Kind and default of a parameter come from the block, bounds from the table. An integer literal with a bound written as a
float (``low = 0.0``) is a float parameter. Messages name file, line and key.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from agent.errors import UsageError, check_key
from agent.space.axes import fault
from agent.space.block import Entry, block_text, read_block
from agent.space.space import SearchSpace
from agent.types import Param, ParamKind, Value

KEYS = ("name", "kind", "low", "high", "log", "power_of_two", "choices")
_HEADER = re.compile(r"^\s*\[\[\s*hyperparameters\s*\]\]")


class Locator:
    """Names the place of a key in a target.toml, for messages; with its line if ``text`` is known."""

    def __init__(self, path: str, text: str) -> None:
        self.path, self._lines = path, text.splitlines()

    def row(self, index: int, key: str = "") -> str:
        """A key of ``[[hyperparameters]]`` number ``index``, or its header."""
        headers = [i for i, line in enumerate(self._lines) if _HEADER.match(line)][index:]
        line = ""
        if headers:  # none for an inline list of tables
            tables = (i for i in range(headers[0] + 1, len(self._lines)) if self._lines[i].lstrip().startswith("["))
            line = self._line(key, headers[0], next(tables, len(self._lines)), headers[0] + 1)
        return f"{self.path}{line}: [[hyperparameters]] number {index + 1}" + (f", key {key}" if key else "")

    def search(self, key: str) -> str:
        """A key of ``[search]``."""
        return f"{self.path}{self._line(key, 0, len(self._lines))}: [search] {key}"

    def _line(self, key: str, start: int, stop: int, otherwise: int = 0) -> str:
        wanted = re.compile(rf"\s*[\"']?{re.escape(key)}[\"']?\s*=")
        found = (i + 1 for i in range(start, stop) if key and wanted.match(self._lines[i]))
        line = next(found, otherwise)
        return f":{line}" if line else ""


def load(path: Path, source: str | None = None) -> SearchSpace:
    """``SearchSpace.from_toml``."""
    path = path / "target.toml" if path.is_dir() else path
    text = _read(path).removeprefix("\ufeff")
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{path}: not valid TOML: {error}") from None
    target = table.get("target", {})
    editable = target.get("editable") if isinstance(target, dict) else None
    name = str(editable[0]) if isinstance(editable, list) and editable else "train.py"
    if source is None:
        source = _read(path.parent / name, f"; {path} lists it as editable")
    return build(table, source, str(path), name, text)


def _read(path: Path, why: str = "") -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}{why}") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: not UTF-8 text: {error}") from None


def build(table: Mapping[str, Any], source: str, where: str, path: str, text: str = "") -> SearchSpace:
    """The space of a parsed target.toml.

    Args:
        table: the whole target.toml.
        source: text of the editable file.
        where: path of the target.toml, for messages.
        path: name of the editable file.
        text: text of the target.toml, for line numbers in messages.

    Raises:
        UsageError: names file, line and key.
    """
    place = Locator(where, text)
    rows = table.get("hyperparameters", [])
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise UsageError(
            f"{where}: no [[hyperparameters]]; name each value that may change, and its bounds (low = 4, high = 24)"
        )
    names: list[str] = []
    for index, row in enumerate(rows):
        names.append(_name(row, index, place, names))
    entries = read_block(source, path, names=names)
    block = block_text(source, path)
    for name, entry in read_block(source, path).items() if block else ():
        if name not in names:
            raise UsageError(
                f"{path}:{entry.line}: {name} is in the hyperparameter block and has no bounds; add it to {where} "
                f"as [[hyperparameters]] with low and high, or move the line out of the block"
            )
    params = [_param(row, entries[row["name"]], index, place, path) for index, row in enumerate(rows)]
    return SearchSpace(params, _constraints(table, place), path, place.search("constraints"), block)


def _constraints(table: Mapping[str, Any], place: Locator) -> list[str]:
    search = table.get("search", {})
    search = search if isinstance(search, dict) else {}
    for key in search:
        check_key(key, ["constraints"], place.search(key))
    constraints = search.get("constraints", [])
    if not isinstance(constraints, list) or not all(isinstance(item, str) for item in constraints):
        raise UsageError(f'{place.search("constraints")}: a list of comparisons, such as ["A >= B * 2"]')
    return constraints


def _name(row: Mapping[str, Any], index: int, place: Locator, taken: list[str]) -> str:
    name = row.get("name")
    if not isinstance(name, str) or not name.isidentifier():
        raise UsageError(f"{place.row(index, 'name')}: set name to a constant of the block")
    if name in taken:
        raise UsageError(f"{place.row(index, 'name')}: {name} is defined twice")
    for key in row:
        check_key(key, KEYS, place.row(index, key), f"key of {name}")
    return name


def _param(row: Mapping[str, Any], entry: Entry, index: int, place: Locator, path: str) -> Param:
    kind: ParamKind = row.get("kind", _kind(row, entry))
    default: Value = entry.value
    if "choices" in row and kind != "categorical":
        raise UsageError(f"{place.row(index, 'kind')}: {entry.name} has choices, so it is categorical")
    if kind == "categorical":
        for key in ("low", "high", "log", "power_of_two"):
            if key in row:
                raise UsageError(f"{place.row(index, key)}: {entry.name} has choices and cannot have {key}")
        choices = row.get("choices", [False, True] if isinstance(default, bool) else [])
        param = Param(entry.name, kind, default, choices=tuple(choices) if isinstance(choices, list) else ())
    else:
        if kind == "int" and isinstance(default, float) and default == int(default):
            default = int(default)
        flags = row.get("log", False), row.get("power_of_two", False)
        param = Param(entry.name, kind, default, row.get("low"), row.get("high"), *flags)
    if problem := fault(param):
        key, text = problem
        if key == "default":
            raise UsageError(f"{path}:{entry.line}: the default breaks its bounds in {place.row(index)}: {text}")
        raise UsageError(f"{place.row(index, key)}: {entry.name}: {text}")
    if param.low is None or param.high is None:
        return param
    return replace(param, low=float(param.low), high=float(param.high))


def _kind(row: Mapping[str, Any], entry: Entry) -> ParamKind:
    if "choices" in row or isinstance(entry.value, (bool, str)):
        return "categorical"
    whole = isinstance(entry.value, int) and not any(isinstance(row.get(key), float) for key in ("low", "high"))
    return "int" if whole else "float"
