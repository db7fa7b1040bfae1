"""Output that is longer than the terminal goes through a pager, as in git."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Mapping

from rich.console import Console, RenderableType
from rich.pager import SystemPager

LESS = "FRX"  # quit if everything fits, pass colours, leave the text on the screen


def page(console: Console, shown: RenderableType) -> None:
    """Print ``shown``; through the pager if it is longer than the terminal is high."""
    if console.is_dumb_terminal or not console.is_terminal or not has_pager(os.environ):
        console.print(shown)
        return
    with console.capture() as captured:
        console.print(shown)
    text = captured.get()
    if text.count("\n") < console.height:
        console.file.write(text)
        console.file.flush()
    else:
        os.environ.setdefault("LESS", LESS)
        os.environ.pop("MANPAGER", None)  # pydoc, which rich uses, would take it before PAGER
        SystemPager().show(text)


def has_pager(environment: Mapping[str, str]) -> bool:
    """Whether the command of PAGER, or ``less``, is a pager that is installed."""
    try:
        words = shlex.split(environment.get("PAGER", "less"))
    except ValueError:  # an unclosed quotation
        return False
    return bool(words) and words != ["cat"] and shutil.which(words[0]) is not None
