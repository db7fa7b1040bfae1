"""Options that several commands share, and the parser class behind all of them."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NoReturn, TypeAlias, get_type_hints

from agent.errors import UsageError
from agent.settings import Settings, plain_type

CACHE = Settings.cache
Commands: TypeAlias = "argparse._SubParsersAction[Parser]"  # what a module's ``add`` adds its command to
SHARED: Mapping[str, tuple[str, dict[str, Any]]] = {  # name for ``add_command``: flag, keywords of add_argument
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


def add_command(commands: Commands, name: str, function: Callable[..., int], shared: str, **options: Any) -> Parser:
    """Add a command that calls ``function`` with its options as keyword arguments.

    Args:
        function: the first line of its docstring is the help text.
        shared: options of ``SHARED``, separated by spaces; add the others to the parser that this returns.
        options: keywords of the parser.
    """
    text = (function.__doc__ or name).splitlines()[0].rstrip(".")
    parser = commands.add_parser(
        name, help=text[0].lower() + text[1:], description=f"{text}.", allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter, **options,
    )  # fmt: skip
    parser.set_defaults(function=function)
    for key in shared.split():
        flag, keywords = SHARED[key]
        parser.add_argument(flag, **keywords)
    return parser


def add_settings(parser: Parser, leave_out: Iterable[str] = ()) -> None:
    """One option per field of ``Settings``, in groups, and --config."""
    names = [field.name for field in dataclasses.fields(Settings) if field.name not in leave_out]
    groups = add_fields(parser, names)
    if "config" not in leave_out:
        groups.add_argument("--config", type=Path, help="TOML file with any of these settings")


def add_fields(parser: Parser, names: Iterable[str], sessions_own: Iterable[str] = ()) -> argparse._ArgumentGroup:
    """One option per named field of ``Settings``; an option that is not given is absent from the namespace.

    Args:
        sessions_own: the fields whose default is the value of the session that the command works on.

    Returns:
        The first group.
    """
    hints = get_type_hints(Settings)
    groups: dict[str, argparse._ArgumentGroup] = {}
    for field in dataclasses.fields(Settings):
        if field.name in names:
            title = field.metadata["group"]
            group = groups.get(title) or groups.setdefault(title, parser.add_argument_group(title))
            _add_field(group, field, plain_type(hints[field.name]), field.name in sessions_own)
    return next(iter(groups.values()))


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
