"""Options that several commands share, and the parser class behind all of them."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NoReturn, get_type_hints

from agent.errors import UsageError
from agent.settings import Settings, plain_type

CACHE = Settings.cache
SHARED: Mapping[str, tuple[str, dict[str, Any]]] = {  # name in ``COMMANDS``: flag, keywords of add_argument
    "tag": ("tag", {"metavar": "TAG", "help": "name of the session"}),
    "newest": ("tag", {"metavar": "TAG", "nargs": "?", "help": "name of the session; default: the newest"}),
    "json": ("--json", {"action": "store_true", "help": "print JSON; schema in docs/reference/json.md"}),
    "runs": (
        "--runs",
        {"metavar": "DIR", "default": Settings.runs, "help": "folder of the run directories (default: runs)"},
    ),
    "cache": ("--cache", {"metavar": "DIR", "default": CACHE, "help": f"folder of prepared data (default: {CACHE})"}),
    "moved": ("--target", {"metavar": "DIR", "help": "folder of the target, if it moved since the session"}),
    # accepted without effect: scripts may pass them, since earlier versions offered them
    "-runs": ("--runs", {"dest": "unused", "help": argparse.SUPPRESS}),
    "-cache": ("--cache", {"dest": "unused", "help": argparse.SUPPRESS}),
}


class Listed(argparse.Action):
    """Joins the values of an option that is given several times with commas."""

    def __call__(self, _parser: Any, namespace: argparse.Namespace, value: Any, _flag: str | None = None) -> None:
        before = getattr(namespace, self.dest, None)
        setattr(namespace, self.dest, f"{before},{value}" if before else value)


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one ``UsageError`` instead of a long usage text."""

    def error(self, message: str) -> NoReturn:
        command = self.prog.partition(" ")[2]
        raise UsageError(f"{command}: {message}. See `{self.prog} --help`.")


def settings_without(*names: str) -> list[str]:
    return [field.name for field in dataclasses.fields(Settings) if field.name not in names]


def add_settings(
    parser: Parser, names: Collection[str], sessions_own: Collection[str] = (), config: bool = False
) -> None:
    """One option per named field of ``Settings``, in groups; an option that is not given is absent from the namespace.

    Args:
        sessions_own: the fields whose default is the value of the session that the command works on.
        config: also add --config to the first group.
    """
    hints = get_type_hints(Settings)
    groups: dict[str, argparse._ArgumentGroup] = {}
    for field in dataclasses.fields(Settings):
        if field.name in names:
            title = field.metadata["group"]
            group = groups.get(title) or groups.setdefault(title, parser.add_argument_group(title))
            _add_field(group, field, plain_type(hints[field.name]), field.name in sessions_own)
    if config:
        first = next(iter(groups.values()))
        first.add_argument("--config", type=Path, help="TOML file with any of these settings")


def _add_field(group: argparse._ArgumentGroup, field: dataclasses.Field[Any], kind: type, sessions_own: bool) -> None:
    flag, text, choices = field.name.replace("_", "-"), field.metadata["help"], field.metadata["choices"]
    options: dict[str, Any] = {"dest": field.name, "default": argparse.SUPPRESS}
    if kind is bool:
        on = field.default is False
        action = "store_true" if on else "store_false"
        text = text if on else f"do not {text}"
        group.add_argument(f"--{flag}" if on else f"--no-{flag}", action=action, help=text, **options)
        return
    metavar = flag.rpartition("-")[2].upper() if kind is str else "N"
    if 0 < len(choices) < 5:
        metavar = "|".join(choices)
    elif choices:
        text += f": {', '.join(choices)}"
    default = f"{field.default:g}" if kind is float and field.default is not None else field.default
    if sessions_own:
        text, default = text.partition("; default")[0], "the session's own"
    text += f" (default: {default})" if default not in (None, "") else ""
    if form := field.metadata["several"]:
        options["action"], metavar = Listed, form
    group.add_argument(f"--{flag}", type=kind, metavar=metavar, help=text, **options)
