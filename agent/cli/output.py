"""Output shared by the commands: tables or JSON on stdout, progress on stderr."""

from __future__ import annotations

import json
import re
import sys
from typing import IO, TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from rich.console import Console


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def show(as_json: bool, data: Any, renderable: Any, paged: bool = True) -> int:
    """Print what was asked for. Without ``paged`` nobody has to be there to leave a pager."""
    if as_json:
        print(_dumps(data()))
    elif paged:
        from agent.review.terminal.pager import page

        page(console(), renderable())
    else:
        console().print(renderable())
    return 0


def _dumps(data: Any) -> str:
    """A list with one element a line, anything else indented: ``indent`` is slow, and lists are what gets long."""
    if isinstance(data, list):
        return "[\n" + ",\n".join(json.dumps(row, ensure_ascii=False, allow_nan=False) for row in data) + "\n]"
    return json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False)


def console(widest: int = 200) -> Console:
    from rich.console import Console

    if sys.stdout.isatty():
        return Console(highlight=False)
    # a file or a pipe has no width: lines there are as long as their content, up to what a wide terminal shows
    return Console(highlight=False, width=widest, file=cast(IO[str], _Unpadded(sys.stdout)))


class _Unpadded:
    """Passes text on without the spaces that fill a line to the edge of a terminal."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file

    def write(self, words: str) -> int:
        return self._file.write(re.sub(r"[ ]+(?=\n)", "", words))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def live_view() -> Any:
    from rich.console import Console

    from agent.observers.protocol import SilentView
    from agent.observers.terminal import LiveView
    from agent.rundir.detach import detached

    if detached():  # session.log says it all
        return SilentView()
    return LiveView(Console(stderr=True, highlight=False))
