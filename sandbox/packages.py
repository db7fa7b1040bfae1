"""How missing Python packages are installed."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from shlex import quote


def install_command(packages: str, python: str = "", pip: bool | None = None) -> str:
    """The command that installs packages for an interpreter, by its path: another environment may be active.

    Args:
        packages: names, separated by spaces.
        python: the interpreter; default: this one.
        pip: whether it has pip, which environments made by uv lack; default: looked up for this interpreter.
    """
    has_pip = find_spec("pip") is not None if pip is None else pip
    place = quote(python or sys.executable)
    start = f"{place} -m pip install" if has_pip else f"uv pip install --python {place}"
    return " ".join([start, *map(quote, packages.split())])
