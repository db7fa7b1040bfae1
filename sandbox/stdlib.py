"""Copies the standard library without its sources and documentation, for jobs that must not read them.

    python -c SOURCE-OF-THIS-FILE FOLDER NAME...

Covers: modules, as bytecode without docstrings; extension modules. NAMEs are left out, as are test packages. Does not
cover: names and texts that the bytecode contains. Standard library only: it also runs inside a Docker image.
"""

# Imports delay the start in a container: no pathlib here.
# ruff: noqa: PTH103, PTH118

from __future__ import annotations

import importlib.util
import marshal
import os
import shutil
import sys
import sysconfig

SOURCES = "*.py"  # as a masked name: all sources of the standard library
_LEFT_OUT = {"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__"}


def place() -> str:
    """The folder of the running Python's standard library."""
    return sysconfig.get_path("stdlib")


def copy(target: str, names: tuple[str, ...]) -> None:
    """Copy the standard library to ``target``, without ``names`` at its top."""
    root = place()
    for folder, folders, files in os.walk(root):
        inner = os.path.relpath(folder, root)
        without = {*_LEFT_OUT, *(names if inner == "." else ())}
        folders[:] = [name for name in folders if name not in without and not name.startswith("config-")]
        os.makedirs(os.path.join(target, inner), exist_ok=True)
        for name in set(files) - without:
            source, copied = os.path.join(folder, name), os.path.join(target, inner, name)
            if name.endswith(".so"):
                shutil.copyfile(source, copied)
            elif name.endswith(".py"):
                _compile(source, f"{copied}c")


def _compile(source: str, target: str) -> None:
    with open(source, "rb") as file:
        text = file.read()
    try:
        code = compile(text, source, "exec", dont_inherit=True, optimize=2)
    except SyntaxError:  # a template, or an example of invalid code
        return
    with open(target, "wb") as file:
        file.write(importlib.util.MAGIC_NUMBER + bytes(12) + marshal.dumps(code))


if __name__ == "__main__":
    copy(sys.argv[1], tuple(sys.argv[2:]))
