"""TOML files: strict reading with errors that name the file, the table and the key; writing without None."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agent.errors import UsageError, check_choice


def read_toml(path: Path) -> dict[str, Any]:
    """Parse a TOML file.

    Raises:
        UsageError: the file does not parse; names the file and the line.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{path}: {error}.") from None
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        raise UsageError(f"{path}: byte {byte:#04x} is not UTF-8. Convert the file to UTF-8.") from None


def dump_toml(tables: Mapping[str, Any]) -> str:
    """TOML text of nested mappings. Keys whose value is None are left out; paths become strings."""
    import tomli_w

    return tomli_w.dumps(_plain(tables))


class Table:
    """Typed values of one TOML table. A wrong value raises ``UsageError`` that names ``where`` and the key."""

    def __init__(self, where: str, values: Mapping[str, Any]):
        self.where, self.values = where, values

    def string(self, key: str, default: str | None = None) -> str:
        value = self._found(key, default)
        if not isinstance(value, str) or (default is None and not value):
            raise UsageError(f"{self.where}: {key} must be a string.")
        return value

    def strings(self, key: str, default: tuple[str, ...] | None = None) -> tuple[str, ...]:
        value = self._found(key, default)
        if not isinstance(value, (list, tuple)) or not all(isinstance(v, str) and v for v in value):
            raise UsageError(f"{self.where}: {key} must be a list of strings.")
        if default is None and not value:
            raise UsageError(f"{self.where}: {key} is empty.")
        return tuple(value)

    def one_of(self, key: str, choices: tuple[str, ...], default: str) -> Any:
        value = self.string(key, default)
        check_choice(value, choices, f"{self.where}: {key}")
        return value

    def positive(self, key: str, default: float | None = None) -> float:
        """A number above 0. The default itself may be 0."""
        value = self.values.get(key, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise UsageError(f"{self.where}: {key} must be a number.")
        if key in self.values and not 0 < value < math.inf:
            raise UsageError(f"{self.where}: {key} = {value} must be a finite number above 0.")
        return float(value)

    def _found(self, key: str, default: Any) -> Any:
        value = self.values.get(key, default)
        if value is None:
            raise UsageError(f"{self.where}: {key} is missing.")
        return value


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items() if v is not None}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return str(value) if isinstance(value, Path) else value
