"""What the user approved: target.toml files (``overnight trust``, ``overnight init``), and sessions of this user.

A target or a run directory may be a clone. Neither may choose its own sandbox, model server or host folders.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from shlex import quote
from typing import Any

from agent.errors import UsageError, system_problem

CONFIG = "XDG_CONFIG_HOME"  # names the folder of configuration files; default: ~/.config
PROTECTED = frozenset(  # settings that [run] sets only in a trusted target.toml
    {"tag", "target", "sandbox", "image", "runs", "cache", "detach", "llm_base_url", "llm_model", "llm_sleep",
     "ray_address", "notify", "track", "python", "notes"}
)  # fmt: skip


def protected_keys(folder: Path, tables: Mapping[str, Any]) -> list[str]:
    """The entries of a target's target.toml that count only if it is trusted, such as ``[run] sandbox``."""
    tables = {name: table for name, table in tables.items() if isinstance(table, Mapping)}
    found = [f"[run] {key}" for key in tables.get("run", {}) if key in PROTECTED]
    mounts, source = tables.get("target", {}).get("mounts"), tables.get("data", {}).get("source")
    if tables.get("target", {}).get("python"):
        found.append("[target] python")  # a program of the host, and folders that trials can read
    for mount in mounts if isinstance(mounts, list) else []:
        if isinstance(mount, str) and _leads_out(folder, Path(mount)):
            found.append(f"[target] mounts {mount!r}")
    if isinstance(source, str) and source != "builtin" and not source.startswith("hub:"):
        found.append(f"[data] source {source!r}")  # text of the host that trials can read
    return found


def check_trusted(folder: Path, tables: Mapping[str, Any]) -> None:
    """Raise ``UsageError`` for protected entries that the user did not approve, with the command that approves them."""
    if (found := protected_keys(folder, tables)) and not is_trusted(folder):
        raise UsageError(
            f"{folder / 'target.toml'} sets {', '.join(found)}. Only a trusted file may set this; this file was not "
            f"approved, or has changed. Read it, then `overnight trust {quote(str(folder))}`. Or remove the entry; "
            f"a setting can be an option or a key of the --config file instead."
        )


def is_trusted(folder: Path) -> bool:
    """Whether the user approved the present content of ``folder/target.toml``."""
    return _record_of_target(folder).is_file()


def trust(folder: Path) -> None:
    """Record the content of ``folder/target.toml`` as approved. A later change of the file needs another approval."""
    _approve(_record_of_target(folder), folder)


def is_own_run(directory: Path, settings: Mapping[str, Any]) -> bool:
    """Whether the user started the session in ``directory`` under ``settings``, or approved it."""
    return _record_of_run(directory, settings).is_file()


def trust_run(directory: Path, settings: Mapping[str, Any]) -> None:
    """Record a session as approved, with the settings under which it can be resumed."""
    _approve(_record_of_run(directory, settings), directory)


def _record_of_target(folder: Path) -> Path:
    path = folder.resolve() / "target.toml"
    return _record(path, path.read_bytes())


def _record_of_run(directory: Path, settings: Mapping[str, Any]) -> Path:
    return _record(directory.resolve(), json.dumps(dict(settings), sort_keys=True).encode())


def _record(place: Path, content: bytes) -> Path:
    """The file that exists if this content was approved at this place."""
    digest = hashlib.sha256(os.fsencode(place) + b"\0" + content).hexdigest()
    return Path(os.environ.get(CONFIG) or Path.home() / ".config") / "overnight" / "trusted" / digest


def _approve(record: Path, place: Path) -> None:
    try:
        record.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        record.write_text(f"{place.resolve()}\n")
    except OSError as error:
        raise system_problem(error) from error


def _leads_out(folder: Path, path: Path) -> bool:
    """Whether ``path`` is outside of the target; symbolic links are followed."""
    try:
        return not (folder / path.expanduser()).resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError, ValueError):  # a loop of links, an unknown user, a null byte
        return True
