"""Entry point: parses the command line, runs one command, and turns errors into messages and exit statuses."""

from __future__ import annotations

import argparse
import difflib
import os
import sys
from collections.abc import Sequence
from importlib import import_module

from agent.cli.parser import build_parser
from agent.errors import OvernightError, UsageError

EXTRAS = {  # package: the extra that brings it
    "torch": "train", "pyarrow": "train", "optuna": "hpo", "sklearn": "hpo", "scipy": "hpo", "threadpoolctl": "hpo",
    "docker": "docker", "jinja2": "report", "matplotlib": "report", "ray": "ray", "smac": "smac",
    "apprise": "notify",
}  # fmt: skip


def unknown_word(parser: argparse.ArgumentParser, command: str, word: str) -> str:
    """What to say of a word that a command does not know: the nearest flag."""
    sub = next(a for a in parser._actions if isinstance(a, argparse._SubParsersAction)).choices[command]
    near = difflib.get_close_matches(word.split("=")[0], sub._option_string_actions, n=1)
    hint = f"Did you mean {near[0]}?" if near else f"`overnight {command} --help` lists what there is."
    return f"{command} does not know {word}. {hint}"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status. A traceback is for bugs."""
    parser = build_parser()
    words = list(sys.argv[1:] if argv is None else argv)
    cut = words.index("--") if words[:1] == ["llm"] and "--" in words else len(words)
    known, unknown = parser.parse_known_args(words[:cut])
    if unknown:
        print(f"overnight: {unknown_word(parser, known.command, unknown[0])}", file=sys.stderr)
        return UsageError.exit_status
    arguments = vars(known)
    module, _, function = arguments.pop("function").partition(":")
    arguments.pop("command")
    if cut < len(words):
        arguments["extra"] = words[cut + 1 :]  # for vLLM, as they are
    try:
        status = getattr(import_module(module), function)(**arguments)
        sys.stdout.flush()
        return int(status or 0)
    except OvernightError as error:
        print(f"overnight: {error}", file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        print("overnight: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of a pipe has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:  # what a command does not tell apart itself: a read-only folder, a full disk
        place = f"{error.filename}: " if error.filename else ""
        print(f"overnight: {place}{error.strerror or error}.", file=sys.stderr)
        return 3
    except ModuleNotFoundError as error:
        extra = EXTRAS.get(error.name or "")
        if extra is None:
            raise
        mend = f"pip install 'overnight[{extra}]'"
        print(f"overnight: {error.name} is not installed. Do: {mend}", file=sys.stderr)
        return 3
