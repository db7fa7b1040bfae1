"""TOML files read strictly: an unknown key is an error that names the nearest valid one."""

from __future__ import annotations

import difflib
import math
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from agent.errors import UsageError


def read_toml(path: Path) -> dict[str, Any]:
    """Parse a TOML file. Raises ``UsageError`` with the file and the line."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: {error}.") from None


def _known(key: str, valid: Iterable[str], where: str, what: str) -> None:
    names = list(valid)
    if key not in names:
        raise UsageError(f"{where}: unknown {what} {key!r}.{_nearest(key, names)}")


def _nearest(key: str, names: Iterable[str]) -> str:
    options = list(names)
    close = difflib.get_close_matches(key, options, n=1, cutoff=0.5)
    return f" Did you mean {close[0]!r}?" if close else f" Valid: {', '.join(sorted(options))}."


class _Taker:
    """Reads typed values out of one table, and says where a wrong one stands."""

    def __init__(self, where: str, table: Mapping[str, Any]):
        self.where, self.table = where, table

    def string(self, key: str, default: str | None = None) -> str:
        value = self.table.get(key, default)
        if not isinstance(value, str) or (default is None and not value):
            raise UsageError(f"{self.where}: {key} must be a text.")
        return value

    def strings(self, key: str, default: tuple[str, ...] | None = None) -> tuple[str, ...]:
        value = self.table.get(key, default)
        if not isinstance(value, (list, tuple)) or not all(isinstance(v, str) and v for v in value):
            raise UsageError(f"{self.where}: {key} must be a list of texts.")
        if default is None and not value:
            raise UsageError(f"{self.where}: {key} is empty.")
        return tuple(value)

    def one_of(self, key: str, choices: tuple[str, ...], default: str) -> str:
        value = self.string(key, default)
        if value not in choices:
            raise UsageError(
                f"{self.where}: {key} = {value!r} is not one of {', '.join(choices)}.{_nearest(value, choices)}"
            )
        return value

    def positive(self, key: str, default: float | None = None) -> float:
        value = self.table.get(key, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise UsageError(f"{self.where}: {key} must be a number.")
        if not math.isfinite(value):
            raise UsageError(f"{self.where}: {key} = {value} is no finite number.")
        if value <= 0 and key in self.table:
            raise UsageError(f"{self.where}: {key} = {value} must be more than 0.")
        return float(value)


def dump_toml(tables: Mapping[str, Any]) -> str:
    import tomli_w

    return tomli_w.dumps(_without_none(tables))


def _without_none(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _without_none(v) for k, v in value.items() if v is not None}
    if isinstance(value, (list, tuple)):
        return [_without_none(v) for v in value]
    return str(value) if isinstance(value, Path) else value
