"""Writes the tables of docs/reference from the code: `python scripts/reference.py`; with --check it only compares."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

from agent.cli import build_parser
from agent.config import _TARGET_KEYS, Settings
from agent.ledger import EVENTS
from nanogpt_target.prepare import DEFAULTS

REFERENCE = Path(__file__).resolve().parents[1] / "docs" / "reference"
BEGIN, END = "<!-- begin: written by scripts/reference.py -->", "<!-- end -->"


def commands() -> str:
    """Every command with its flags."""
    parts = []
    action = next(a for a in build_parser()._actions if isinstance(a, argparse._SubParsersAction))
    helps = {choice.dest: choice.help or "" for choice in action._choices_actions}
    for name, parser in action.choices.items():
        words = [a.metavar or a.dest for a in parser._actions if not a.option_strings]
        shown = " ".join(f"[{w}]" if name == "status" else str(w) for w in words)
        parts.append(
            f"## `overnight {name}{' ' + shown if shown else ''}`\n\n{helps[name][:1].upper()}{helps[name][1:]}.\n"
        )
        rows = [
            f"| `{', '.join(a.option_strings)}` | {_cell(a.help)} |"
            for a in parser._actions
            if a.option_strings and "--help" not in a.option_strings
        ]
        if rows:
            parts.append("\n".join(["| flag | meaning |", "|---|---|", *rows]) + "\n")
    return "\n".join(parts)


def settings() -> str:
    """Every key of a settings file."""
    rows = []
    for field in dataclasses.fields(Settings):
        default = "" if field.default in (None, "") else f"`{str(field.default).lower()}`"
        choices = ", ".join(f"`{choice}`" for choice in field.metadata["choices"])
        text = field.metadata["help"] + (f": {choices}" if choices else "")
        rows.append(f"| `{field.name}` | {default} | {_cell(text)} |")
    return "\n".join(["| key | default | meaning |", "|---|---|---|", *rows]) + "\n"


def target() -> str:
    """Every table and key of a target.toml."""
    rows = []
    for table, keys in _TARGET_KEYS.items():
        for key in keys or {"data": tuple(DEFAULTS), "run": ("any setting",)}.get(table, ("name", "low", "high", "…")):
            rows.append(f"| `[{table}]` | `{key}` |")
    return "\n".join(["| table | key |", "|---|---|", *rows]) + "\n"


def ledger() -> str:
    """The kinds of events."""
    return ", ".join(f"`{event}`" for event in EVENTS) + "\n"


def schemas() -> str:
    """What each command prints with --json, in the words of the module that prints it."""
    parts = []
    for name in ("list", "status", "log", "show"):
        text = import_module(f"agent.views.{'runs' if name == 'list' else name}").__doc__ or ""
        schema = text[text.index("``", text.index("\n")) :].strip()
        parts.append(f"## `overnight {name} --json`\n\n{schema.replace('``', '`')}\n")
    return "\n".join(parts)


PAGES = {
    "commands.md": {"commands": commands},
    "settings.md": {"settings": settings},
    "target-toml.md": {"target": target},
    "json.md": {"schemas": schemas},
    "files-and-refs.md": {"ledger": ledger},
}


def _cell(text: str | None) -> str:
    return (text or "").replace("|", "\\|").replace("%%", "%")


def pages() -> Iterator[tuple[Path, str, str]]:
    """Each page: its path, its text now, and its text as it should be."""
    for name, parts in PAGES.items():
        path = REFERENCE / name
        text = path.read_text()
        wanted = text
        for make in parts.values():
            head, _, rest = wanted.partition(BEGIN)
            _, _, tail = rest.partition(END)
            wanted = f"{head}{BEGIN}\n\n{make()}\n{END}{tail}"
        yield path, text, wanted


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="exit with 1 if a page differs from the code")
    check = parser.parse_args().check
    stale = [(path, wanted) for path, text, wanted in pages() if text != wanted]
    for path, wanted in stale:
        if not check:
            path.write_text(wanted)
        print(f"{path.name} {'differs from the code: run scripts/reference.py' if check else 'written'}")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
