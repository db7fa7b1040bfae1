"""Removing a folder that code nobody has read has filled."""

from __future__ import annotations

import contextlib
import secrets
from pathlib import Path


def remove_tree(folder: Path) -> None:
    """Remove a folder with all that is in it; what cannot be removed stays.

    Folders may be nested deeper than a recursion or the name of a path can reach, and be closed to their own owner. So
    each is opened, and what it holds is lifted up to the top, until the top holds no folder any more. Every process
    that could put something there must have ended.
    """
    with contextlib.suppress(OSError):
        while folders := _emptied(folder, folder):
            for place in folders:
                _emptied(place, folder)
                place.rmdir()
        folder.rmdir()


def _emptied(place: Path, top: Path) -> list[Path]:
    """Remove the files of ``place``; its folders are lifted into ``top``, or returned if they are there."""
    place.chmod(0o700)
    own = []
    for entry in list(place.iterdir()):
        if entry.is_symlink() or not entry.is_dir():
            entry.unlink()
        elif place == top:
            own.append(entry)
        else:
            entry.chmod(0o700)  # moving a folder writes into it
            entry.rename(top / secrets.token_hex(8))
    return own
