"""Mounts: directories of the host that a trainer reads, at the paths where its code expects them.

The mounts are ``{mount0}``, ``{mount1}`` and so on. A mount relative to the target also appears at the same path in the
code; a mount below the home directory (``~/.cache/data``) also at the same path below the trial's home.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from agent.errors import UsageError
from agent.target import Target
from sandbox.types import Mount

# Program that links mounts below the trial's home and then executes the trainer.
_LINK = """
import os, sys
end = sys.argv.index("--")
for word in sys.argv[1:end]:
    place, _, name = word.rpartition("=")
    link = os.path.join(os.path.expanduser("~"), name)
    os.makedirs(os.path.dirname(link), exist_ok=True)
    os.symlink(place, link)
try:
    os.execvp(sys.argv[end + 1], sys.argv[end + 1:])
except OSError as error:
    sys.exit(f"cannot start {sys.argv[end + 1]}: {error}")
"""


def place_of(target: Target, written: str) -> Path:
    """The host directory of an entry of ``mounts``."""
    return target.folder / Path(written).expanduser()


def check_mounts(target: Target) -> None:
    """Raise ``UsageError`` for a mount that is missing or would hide the edited file."""
    where = f"{target.folder / 'target.toml'}, [target], mounts"
    for written in target.mounts:
        if not place_of(target, written).is_dir():
            raise UsageError(f"{where}: {written} is no directory. Prepare the data, or correct the path.")
        if _in_code(written):
            path = PurePosixPath(written)
            if ".." in path.parts or PurePosixPath(target.path).is_relative_to(path):
                raise UsageError(
                    f"{where}: {written} must be a folder of data below the target, without {target.path}."
                )


def stage(target: Target, code: Path) -> dict[str, Mount]:
    """The mounts of a trial. Relative links in ``code`` lead to them: every sandbox puts all mounts side by side."""
    mounts = {}
    for k, written in enumerate(target.mounts):
        place = code.parent / f"mount{k}"
        place.symlink_to(place_of(target, written).resolve(), target_is_directory=True)
        mounts[place.name] = Mount(place)
        if _in_code(written):
            link = code / written
            if link.is_dir():
                shutil.rmtree(link)  # files of that folder in git are in the mount too
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to("/".join([*[".."] * len(PurePosixPath(written).parts), place.name]))
    return mounts


def command(target: Target, argv: Sequence[str]) -> tuple[str, ...]:
    """``argv`` with the trial's interpreter, after the program that links mounts below the home directory, if any."""
    argv = ["{python}" if word in ("python", "python3") else word for word in argv]
    links = [f"{{mount{k}}}={m[2:]}" for k, m in enumerate(target.mounts) if m.startswith("~/") and m[2:].strip("/.")]
    return ("{python}", "-I", "-S", "-c", _LINK, *links, "--", *argv) if links else tuple(argv)


def _in_code(written: str) -> bool:
    return not written.startswith(("/", "~"))
