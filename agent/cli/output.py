"""Output of the commands: data on stdout, progress on stderr."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from typing import IO, Any, cast

from rich.console import Console

from agent.observers.protocol import Observer
from agent.observers.terminal import LiveView
from agent.review.terminal.pager import page
from agent.rundir.detach import detached


def say(text: str) -> None:
    """Print progress."""
    print(text, file=sys.stderr, flush=True)


def show(as_json: bool, data: Callable[[], Any], renderable: Callable[[], Any], paged: bool = True) -> int:
    """Print ``data`` as JSON, or ``renderable`` for a person, in a pager if ``paged``. Returns exit status 0."""
    if as_json:
        print(_dumps(data()))
    elif paged:
        page(console(), renderable())
    else:
        console().print(renderable())
    return 0


def _dumps(data: Any) -> str:
    """One line per element of a list: ``indent`` is slow for long lists."""
    if isinstance(data, list):
        return "[\n" + ",\n".join(json.dumps(row, ensure_ascii=False, allow_nan=False) for row in data) + "\n]"
    return json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False)


def console(widest: int = 200) -> Console:
    """A console on stdout; in a file or pipe, lines have at most ``widest`` characters."""
    if sys.stdout.isatty():
        return Console(highlight=False)
    return Console(highlight=False, width=widest, file=cast(IO[str], _Unpadded(sys.stdout)))


class _Unpadded:
    """A stream that drops the spaces with which rich fills lines."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file

    def write(self, words: str) -> int:
        return self._file.write(re.sub(r"[ ]+(?=\n)", "", words))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def live_view() -> Observer:
    """The observer that shows a session on stderr; a detached session writes session.log only."""
    return Observer() if detached() else LiveView(Console(stderr=True, highlight=False))
