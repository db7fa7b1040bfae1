"""Options that several commands share, and the parser class behind all of them."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, NoReturn, TypeAlias, get_type_hints

from agent.errors import UsageError
from agent.settings import Settings, plain_type

Option: TypeAlias = Callable[[argparse.ArgumentParser], object]  # adds itself to a parser


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


def command(
    name: str, function: str, text: str, *options: Option, **more: Any
) -> Callable[[argparse._SubParsersAction[Parser]], None]:
    """A command, as a function that adds it to the commands of a parser.

    Args:
        function: module of ``agent.cli`` and its function, which receives the options as keyword arguments.
        text: what the command does, for --help.
        more: keywords of the parser.
    """

    def add_to(commands: argparse._SubParsersAction[Parser]) -> None:
        parser = commands.add_parser(
            name, help=text, description=f"{text[0].upper()}{text[1:]}.", allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter, **more,
        )  # fmt: skip
        parser.set_defaults(function=f"agent.cli.{function}")
        for add_option in options:
            add_option(parser)

    return add_to


def option(*names: str, **keywords: Any) -> Option:
    """An option with the keywords of ``add_argument``."""
    return lambda parser: parser.add_argument(*names, **keywords)


def settings(names: Collection[str], own: Collection[str] = (), config: bool = False) -> Option:
    """One option per named field of ``Settings``, in groups; an option that is not given is absent from the namespace.

    Args:
        own: more fields, whose default is the value of the session that the command works on.
        config: also add --config to the first group.
    """

    def add_to(parser: argparse.ArgumentParser) -> None:
        hints = get_type_hints(Settings)
        groups: dict[str, argparse._ArgumentGroup] = {}
        for field in dataclasses.fields(Settings):
            if field.name in (*names, *own):
                title = field.metadata["group"]
                group = groups.get(title) or groups.setdefault(title, parser.add_argument_group(title))
                _add_field(group, field, plain_type(hints[field.name]), field.name in own)
        if config:
            first = next(iter(groups.values()))
            first.add_argument("--config", type=Path, help="TOML file with any of these settings")

    return add_to


def settings_without(*names: str) -> list[str]:
    return [field.name for field in dataclasses.fields(Settings) if field.name not in names]


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
