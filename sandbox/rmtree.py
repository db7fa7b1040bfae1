"""Removes a directory tree that untrusted code wrote."""

from __future__ import annotations

import contextlib
import secrets
from pathlib import Path


def remove_tree(folder: Path) -> None:
    """Remove a directory tree; entries that cannot be removed stay.

    Directories may be nested deeper than a path name or a recursion can reach, and may deny access to their owner. So
    each directory is opened up, and its subdirectories are moved to the top level. The processes that wrote the tree
    must have ended.
    """
    with contextlib.suppress(OSError):
        while folders := _emptied(folder, folder):
            for place in folders:
                _emptied(place, folder)
                place.rmdir()
        folder.rmdir()


def _emptied(place: Path, top: Path) -> list[Path]:
    """Remove the files of ``place``. Move its directories to ``top``, or return them if they are there already."""
    place.chmod(0o700)
    own = []
    for entry in list(place.iterdir()):
        if entry.is_symlink() or not entry.is_dir():
            entry.unlink()
        elif place == top:
            own.append(entry)
        else:
            entry.chmod(0o700)  # renaming a directory updates its ".." entry
            entry.rename(top / secrets.token_hex(8))
    return own
