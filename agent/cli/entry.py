"""Entry point: parses the command line, runs one command, turns errors into messages and exit statuses."""

from __future__ import annotations

import io
import os
import pkgutil
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, cast

from agent.cli.parser import build_parser, commands_of
from agent.errors import OvernightError, UsageError, similar

FIRST_COMMANDS = """usage: overnight COMMAND [OPTIONS]

Commands to begin with:
  overnight demo                     a complete short session on this CPU
  overnight init DIR                 a target of your own: model, data, budget
  overnight run --target DIR         a session; stop and resume at any time

`overnight --help` lists all commands."""
EXTRAS = {  # package: the extra that installs it
    "torch": "train", "pyarrow": "train", "optuna": "hpo", "sklearn": "hpo", "scipy": "hpo", "threadpoolctl": "hpo",
    "docker": "docker", "jinja2": "report", "matplotlib": "report", "ray": "ray", "smac": "smac",
    "apprise": "notify",
}  # fmt: skip
LIBRARIES = {  # module of an exception that no caller expected: what it speaks to
    "git": "git", "gitdb": "git", "openai": "model server", "httpx": "model server", "httpcore": "model server",
    "httpx2": "model server", "httpcore2": "model server",
}  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status. Only a bug leaves a traceback."""
    _print_anywhere()
    words = list(sys.argv[1:] if argv is None else argv)
    if not words:
        print(FIRST_COMMANDS, file=sys.stderr)
        return UsageError.exit_status
    try:
        function, arguments = parse(words)
        status = function(**arguments)
        sys.stdout.flush()
        return status or 0
    except OvernightError as error:
        return _fail(str(error), error.exit_status)
    except KeyboardInterrupt:
        return _fail("interrupted", 130)
    except BrokenPipeError:  # the reader closed the pipe early, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:  # a read-only folder, a full disk
        place = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, (str, bytes)) else ""
        return _fail(f"{place}{error.strerror or error}.", 3)
    except ModuleNotFoundError as error:
        extra = EXTRAS.get(error.name or "")
        if extra is None:
            raise
        from sandbox.packages import install_command

        return _fail(f"{error.name} is not installed. Run: {install_command(f'overnight[{extra}]')}", 3)
    except Exception as error:
        library = type(error).__module__.partition(".")[0]
        if library not in LIBRARIES:
            raise
        from sandbox.output import clean

        return _fail(f"{LIBRARIES[library]}: {type(error).__name__}: {clean(str(error))}", 3)


def parse(words: list[str]) -> tuple[Callable[..., int | None], dict[str, Any]]:
    """The function of the command and its arguments. Raises ``UsageError`` that names the nearest command or option."""
    parser = build_parser()
    commands = commands_of(parser)
    if words[0] not in {**commands, **parser._option_string_actions}:
        names = parser._option_string_actions if words[0].startswith("-") else commands
        raise UsageError(f"no command {words[0]!r}.{similar(words[0], names) or ' See `overnight --help`.'}")
    cut = words.index("--") if words[0] == "llm" and "--" in words else len(words)
    known, unknown = parser.parse_known_args(words[:cut])
    arguments = vars(known)
    command = arguments.pop("command")
    arguments.pop("unused", None)
    if unknown:
        options = commands[command]._option_string_actions if unknown[0].startswith("-") else ()
        hint = similar(unknown[0].split("=")[0], options)
        raise UsageError(f"{command} does not accept {unknown[0]!r}.{hint or f' See `overnight {command} --help`.'}")
    if cut < len(words):
        arguments["extra"] = words[cut + 1 :]  # passed to vLLM unchanged
    return pkgutil.resolve_name(arguments.pop("function")), arguments


def _print_anywhere() -> None:
    """Replace characters that the terminal's encoding lacks; print nowhere where a stream is closed (``>&-``)."""
    nowhere = Path(os.devnull).open("w")  # noqa: SIM115 -- open until the process ends
    sys.stdout, sys.stderr = (stream or nowhere for stream in (sys.stdout, sys.stderr))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    if not isinstance(sys.stderr, _Progress):
        sys.stderr = cast(IO[str], _Progress(sys.stderr))


class _Progress:
    """A stream whose text is lost where it cannot be written (a full disk, a closed pipe): the session goes on."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file

    def write(self, words: str) -> int:
        with suppress(OSError):
            self._file.write(words)
        return len(words)

    def flush(self) -> None:
        with suppress(OSError):
            self._file.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def _fail(message: str, status: int) -> int:
    print(f"overnight: {message}", file=sys.stderr)
    return status
