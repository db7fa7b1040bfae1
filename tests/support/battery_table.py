"""The table of the battery in docs/explanation/trust.md: one column for each sandbox, written by a real run."""

from __future__ import annotations

import fcntl
import re
from collections.abc import Mapping
from pathlib import Path

from elsewhere import ELSEWHERE

BEGIN = "<!-- begin: battery, written by tests/e2e/test_attacks.py -->"
END = "<!-- end: battery -->"
ORDINARY = "bwrap, ordinary user"
SANDBOXES = ("docker", "bwrap", ORDINARY)
Key = tuple[int, str]


def write(page: Path, sandbox: str, found: Mapping[Key, str]) -> None:
    """Put what happened in ``sandbox`` into its column; the other one stays as it is."""
    with page.open("r+") as file:  # two runs may each write a column
        fcntl.flock(file, fcntl.LOCK_EX)
        text = _with(file.read(), sandbox, found)
        file.seek(0)
        file.write(text)
        file.truncate()


def merge(page: Path, other: Path, sandbox: str) -> None:
    """Copy the column of ``sandbox`` from the page ``other``."""
    text = other.read_text()
    rows = _read(text[text.index(BEGIN) + len(BEGIN) : text.index(END)])
    write(page, sandbox, {key: cells[sandbox] for key, cells in rows.items() if sandbox in cells})


def _with(text: str, sandbox: str, found: Mapping[Key, str]) -> str:
    start, end = text.index(BEGIN) + len(BEGIN), text.index(END)
    rows = _read(text[start:end])
    for key, what in found.items():
        rows.setdefault(key, {})[sandbox] = what
    for number, (name, what, others) in ELSEWHERE.items():
        rows[number, name] = {**dict.fromkeys(SANDBOXES, what), **others}
    lines = [f"| | attack | {' | '.join(SANDBOXES)} |", "|---|---|" + "---|" * len(SANDBOXES)]
    for (number, name), cells in sorted(rows.items()):
        said = [_cell(cells.get(s, "–")) for s in SANDBOXES]
        lines.append(f"| {number or ''} | {name} | {' | '.join(said)} |")
    return text[:start] + "\n" + "\n".join(lines) + "\n" + text[end:]


def _read(table: str) -> dict[Key, dict[str, str]]:
    rows: dict[Key, dict[str, str]] = {}
    head, _, *lines = table.strip().splitlines()
    names = [cell.strip() for cell in head.strip("|").split("|")][2:]
    for line in lines:
        number, name, *cells = (cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip("|")))
        rows[int(number or 0), name] = {s: c for s, c in zip(names, cells, strict=True) if c != "–"}
    return rows


def _cell(text: str) -> str:
    return re.sub(r"(?<!\\)\|", r"\\|", text)
