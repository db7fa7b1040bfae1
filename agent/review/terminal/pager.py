"""Output that is longer than the terminal goes through a pager, as in git."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Mapping, Sequence

from rich.console import Console, RenderableType
from rich.pager import SystemPager

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
    if text.count("\n") < console.height:
        console.file.write(text)
        console.file.flush()
    else:
        os.environ.setdefault("LESS", LESS)
        SystemPager().show(text)


def pager_of(environment: Mapping[str, str]) -> Sequence[str]:
    """Return the command of PAGER, or ``less``; [] if it is empty, ``cat`` or not installed."""
    try:
        words = shlex.split(environment.get("PAGER", DEFAULT))
    except ValueError:  # an unclosed quotation
        return []
    return words if words and words != ["cat"] and shutil.which(words[0]) else []
