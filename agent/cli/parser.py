"""Assembles the parser from the modules of the commands. None of them imports a heavy package at its top."""

from __future__ import annotations

import argparse
from importlib import import_module

from agent import __version__
from agent.cli.options import Parser

MODULES = (  # in the order of the help
    "demo", "init", "run", "review", "watch", "mcp", "branch", "export", "ideas", "replay", "compare", "judge", "llm",
    "clean", "doctor",
)  # fmt: skip
EPILOG = """exit status: 0 done, 1 failed, 2 wrong usage or configuration, 3 missing or broken environment
(Docker, model server, disk), 130 interrupted. Data goes to stdout, progress to stderr."""


def build_parser() -> Parser:
    """The parser of the command line. Each command stores its function under ``function``."""
    parser = Parser(
        prog="overnight",
        description="Runs a code-editing research agent overnight and keeps edits whose gain exceeds the noise.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"overnight {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for module in MODULES:
        import_module(f"agent.cli.{module}").add(commands)
    return parser


def commands_of(parser: Parser) -> dict[str, Parser]:
    """The parser of each command by its name."""
    action = next(a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    return dict(action.choices)
