"""Output that is longer than the terminal goes through a pager, as in git."""

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
LESS = "FRX"  # quit if everything fits, pass colours, leave the text on the screen


def page(console: Console, shown: RenderableType) -> None:
    """Print ``shown``; through the pager if it is longer than the terminal is high."""
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
    """Return the command of PAGER, or ``less``; [] if it is empty, ``cat`` or not installed."""
    try:
        words = shlex.split(environment.get("PAGER", DEFAULT))
    except ValueError:  # an unclosed quotation
        return []
    return words if words and words != ["cat"] and shutil.which(words[0]) else []


def _paged(pager: Sequence[str], text: str) -> bool:
    """Whether the pager started. Its exit status is ignored: readers quit before the end."""
    try:
        child = subprocess.Popen(pager, stdin=subprocess.PIPE, env={"LESS": LESS, **os.environ})
    except OSError:
        return False
    with _interrupts_ignored():
        child.communicate(text.encode())
    return True


@contextlib.contextmanager
def _interrupts_ignored() -> Iterator[None]:
    """Ignore Ctrl-C: in the pager it ends a search."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
