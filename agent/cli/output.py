"""Output of the commands: data on stdout, progress on stderr."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from typing import Any, TypeVar

from rich.console import Console, RenderableType

from agent.observers.protocol import Observer
from agent.observers.terminal import LiveView
from agent.review.terminal.pager import page
from agent.rundir.detach import detached

T = TypeVar("T")


def say(text: str) -> None:
    """Print progress."""
    print(text, file=sys.stderr, flush=True)


def show(
    as_json: bool,
    found: T,
    data: Callable[[T], Any],
    view: Callable[[T], RenderableType],
    paged: bool = True,
    widest: int = 200,
) -> None:
    """Print ``data(found)`` as JSON, or ``view(found)`` for a person, in a pager if ``paged``."""
    if as_json:
        print(_dumps(data(found)))
    elif paged and sys.stdout.isatty():
        page(Console(highlight=False), view(found))
    else:
        draw(view(found), widest)


def _dumps(data: Any) -> str:
    """One line per element of a list: ``indent`` is slow for long lists."""
    if isinstance(data, list):
        return "[\n" + ",\n".join(json.dumps(row, ensure_ascii=False, allow_nan=False) for row in data) + "\n]"
    return json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False)


def draw(renderable: RenderableType, widest: int = 200) -> None:
    """Print for a person; in a file or pipe, lines have at most ``widest`` characters and no padding."""
    if sys.stdout.isatty():
        Console(highlight=False).print(renderable)
        return
    out = Console(highlight=False, width=widest)
    with out.capture() as captured:
        out.print(renderable)
    sys.stdout.write(re.sub(r"[ ]+(?=\n)", "", captured.get()))


def live_view() -> Observer:
    """The observer that shows a session on stderr; a detached session writes session.log only."""
    return Observer() if detached() else LiveView(Console(stderr=True, highlight=False))
