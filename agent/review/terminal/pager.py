"""What does not fit onto a terminal goes through a pager, as git does it."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence

from rich.console import Console, RenderableType

DEFAULT = "less"
LESS = "FRX"  # quit where all fits, let colours through, leave the text on the screen


def page(console: Console, shown: RenderableType) -> None:
    """Print ``shown``; through the pager where it is longer than the terminal is high."""
    pager = pager_of(os.environ) if console.is_terminal and not console.is_dumb_terminal else []
    if not pager:
        console.print(shown)
        return
    with console.capture() as captured:
        console.print(shown)
    text = captured.get()
    if text.count("\n") < console.height or not _paged(pager, text):
        console.file.write(text)
        console.file.flush()


def pager_of(environment: Mapping[str, str]) -> Sequence[str]:
    """The words of PAGER, or ``less``; none where it is empty, ``cat``, or not installed."""
    try:
        words = shlex.split(environment.get("PAGER", DEFAULT))
    except ValueError:  # a quotation without an end
        return []
    return words if words and words != ["cat"] and shutil.which(words[0]) else []


def _paged(pager: Sequence[str], text: str) -> bool:
    """Whether the pager could be started. How it ended is nobody's business: people leave before the end."""
    try:
        child = subprocess.Popen(pager, stdin=subprocess.PIPE, env={"LESS": LESS, **os.environ})
    except OSError:
        return False
    with _left_to_the_pager():
        child.communicate(text.encode())
    return True


@contextlib.contextmanager
def _left_to_the_pager() -> Iterator[None]:
    """Ctrl-C is for the pager, which ends a search with it."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
