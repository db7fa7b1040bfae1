"""Finds named files and packages, with their compiled forms, of every Python on a machine.

    python -c SOURCE-OF-THIS-FILE NAME...

prints the folders of the standard library and of packages, then the paths.

Covers: the running Python with its site-packages, and Pythons below /usr that other programs bring along. Not covered:
copies in archives, or under other names. Standard library only: it also runs inside a Docker image.
"""

# Imports delay the start in a container: no pathlib here.
# ruff: noqa: PTH112, PTH113, PTH119, PTH207

from __future__ import annotations

import functools
import glob
import os
import sys
import sysconfig

_SKIPPED = {"site-packages", "dist-packages", "node_modules", "doc", "include", "locale", "man", "icons", "fonts"}


@functools.cache
def libraries(root: str) -> tuple[str, ...]:
    """The folders below ``root`` that hold a standard library."""
    found = []
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if name not in _SKIPPED]
        if "os.py" in files or os.path.basename(folder).startswith("python3"):
            found.append(folder)
    return tuple(found)


def find(names: tuple[str, ...], folders: tuple[str, ...] = ()) -> list[str]:
    """The paths of the named files and packages. The name "*.py" stands for all other standard libraries.

    ``folders``: of another Python, which jobs run. Its standard library stays, without the named files.
    """
    if not names:
        return []
    own = sysconfig.get_path("stdlib")
    used = {place for root in folders for place in libraries(root)}
    places = {own, *libraries("/usr"), *libraries(sys.base_prefix), *used}
    found = []
    if "*.py" in names:  # jobs have a copy of their own standard library
        found = sorted(place for place in places if place not in {own, *used} and os.path.isfile(f"{place}/os.py"))
        places -= {own, *found}
    places |= {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    for path in sorted(f"{place}/{name}" for place in places for name in names):
        folder, _, file = path.rpartition("/")
        if os.path.isdir(path):
            found.append(path)
        elif os.path.isfile(path):
            found += [path, *sorted(glob.glob(f"{folder}/__pycache__/{file.removesuffix('.py')}.*.pyc"))]
    return found


if __name__ == "__main__":
    print(*map(sysconfig.get_path, ("stdlib", "purelib")), *find(tuple(sys.argv[1:])), sep="\n")
