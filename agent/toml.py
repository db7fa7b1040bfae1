"""TOML files: reading with errors that name the file and the line; writing without None."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agent.errors import UsageError


def read_toml(path: Path) -> dict[str, Any]:
    """Parse a TOML file. Raises ``UsageError`` that names the file and the line."""
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


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items() if v is not None}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return str(value) if isinstance(value, Path) else value
