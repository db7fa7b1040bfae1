"""Build a search space from ``[[hyperparameters]]`` of a target.toml and the block of the editable file.

Kind and default of a parameter come from the block, bounds from the table. An integer literal with a bound written as a
float (``low = 0.0``) is a float parameter. Messages name file, line and key.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from agent.errors import UsageError, check_key
from agent.space.axes import fault
from agent.space.block import Entry, block_text, read_block
from agent.space.space import SearchSpace
from agent.types import Param, ParamKind, Value

KEYS = ("name", "kind", "low", "high", "log", "power_of_two", "choices")


@dataclass(frozen=True)
class _Places:
    """Names the places of keys in a target.toml, for messages."""

    path: Path
    lines: list[str]

    def row(self, index: int, key: str = "") -> str:
        """A key of ``[[hyperparameters]]`` number ``index``, or its header."""
        where = f"{self.path}{self._line('hyperparameters', index, key)}: [[hyperparameters]] number {index + 1}"
        return where + (f", key {key}" if key else "")

    def search(self, key: str) -> str:
        """A key of ``[search]``."""
        return f"{self.path}{self._line('search', 0, key)}: [search] {key}"

    def _line(self, table: str, index: int, key: str) -> str:
        """The line of a key, else of the header of its table; "" for a table without header, such as an inline one."""
        header, wanted = re.compile(rf"\s*\[+\s*{table}\s*\]+"), re.compile(rf"\s*[\"']?{re.escape(key)}[\"']?\s*=")
        starts = [number for number, line in enumerate(self.lines, 1) if header.match(line)][index:]
        if not starts:
            return ""
        for number, line in enumerate(self.lines[starts[0] :], starts[0] + 1):
            if line.lstrip().startswith("["):
                break
            if wanted.match(line):
                return f":{number}"
        return f":{starts[0]}"


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
    places = _Places(path, text.splitlines())
    params = _params(table.get("hyperparameters"), source, places, name)
    search = table.get("search", {})
    search = search if isinstance(search, dict) else {}
    for key in search:
        check_key(key, ["constraints"], places.search(key))
    constraints = search.get("constraints", [])
    return SearchSpace(params, constraints, name, places.search("constraints"), block_text(source, name))


def _read(path: Path, why: str = "") -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}{why}") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: not UTF-8 text: {error}") from None


def _params(rows: Any, source: str, places: _Places, path: str) -> list[Param]:
    """The parameters of the tables ``[[hyperparameters]]``; ``path`` names the editable file."""
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise UsageError(
            f"{places.path}: no [[hyperparameters]]; "
            "name each value that may change, and its bounds (low = 4, high = 24)"
        )
    names: list[str] = []
    for index, row in enumerate(rows):
        name = row.get("name")
        if not isinstance(name, str) or not name.isidentifier():
            raise UsageError(f"{places.row(index, 'name')}: set name to a constant of the block")
        if name in names:
            raise UsageError(f"{places.row(index, 'name')}: {name} is defined twice")
        for key in row:
            check_key(key, KEYS, places.row(index, key), f"key of {name}")
        names.append(name)
    entries = read_block(source, path, names=names)
    for name, entry in read_block(source, path).items() if block_text(source, path) else ():
        if name not in names:
            raise UsageError(
                f"{path}:{entry.line}: {name} is in the hyperparameter block and has no bounds; add it to "
                f"{places.path} as [[hyperparameters]] with low and high, or move the line out of the block"
            )
    return [_param(row, entries[row["name"]], index, places, path) for index, row in enumerate(rows)]


def _param(row: Mapping[str, Any], entry: Entry, index: int, places: _Places, path: str) -> Param:
    kind: ParamKind = row.get("kind", _kind(row, entry))
    default: Value = entry.value
    if "choices" in row and kind != "categorical":
        raise UsageError(f"{places.row(index, 'kind')}: {entry.name} has choices, so it is categorical")
    if kind == "categorical":
        for key in ("low", "high", "log", "power_of_two"):
            if key in row:
                raise UsageError(f"{places.row(index, key)}: {entry.name} has choices and cannot have {key}")
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
            raise UsageError(f"{path}:{entry.line}: the default breaks its bounds in {places.row(index)}: {text}")
        raise UsageError(f"{places.row(index, key)}: {entry.name}: {text}")
    if param.low is None or param.high is None:
        return param
    return replace(param, low=float(param.low), high=float(param.high))


def _kind(row: Mapping[str, Any], entry: Entry) -> ParamKind:
    if "choices" in row or isinstance(entry.value, (bool, str)):
        return "categorical"
    whole = isinstance(entry.value, int) and not any(isinstance(row.get(key), float) for key in ("low", "high"))
    return "int" if whole else "float"
