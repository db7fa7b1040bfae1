"""Directories of the host that a foreign trainer reads, put where its code looks for them.

Every mount appears as ``{mount0}``, ``{mount1}`` and so on. One written relative to the target appears at the same
place in the code, too, and one below the home directory (``~/.cache/data``) at the same place below the trial's home.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from agent.errors import UsageError
from agent.target import Target
from sandbox.types import Mount

# The first words of a trial that looks for data below its home: link them there, then become the trainer.
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
    """The directory of the host that an entry of ``mounts`` names."""
    return target.folder / Path(written).expanduser()


def check_mounts(target: Target) -> None:
    """Raises UsageError for a mount that is not there, or that would hide the file that is edited."""
    where = f"{target.folder / 'target.toml'}, [target], mounts"
    for written in target.mounts:
        if not place_of(target, written).is_dir():
            raise UsageError(f"{where}: {written} is no directory. Prepare the data, or name where they are.")
        if _in_code(written):
            path = PurePosixPath(written)
            if ".." in path.parts or PurePosixPath(target.path).is_relative_to(path):
                raise UsageError(
                    f"{where}: {written} must be a folder of data below the target, without {target.path}."
                )


def stage(target: Target, code: Path) -> dict[str, Mount]:
    """The mounts of a trial. In ``code``, links lead to them: mounts lie side by side in every sandbox."""
    mounts = {}
    for k, written in enumerate(target.mounts):
        place = code.parent / f"mount{k}"
        place.symlink_to(place_of(target, written).resolve(), target_is_directory=True)
        mounts[place.name] = Mount(place)
        if _in_code(written):
            link = code / written
            if link.is_dir():
                shutil.rmtree(link)  # what git knows of that folder is in the mount as well
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to("/".join([*[".."] * len(PurePosixPath(written).parts), place.name]))
    return mounts


def command(target: Target, argv: Sequence[str]) -> tuple[str, ...]:
    """``argv``, behind words that link what is looked for below the home directory."""
    links = [f"{{mount{k}}}={m[2:]}" for k, m in enumerate(target.mounts) if m.startswith("~/") and m[2:].strip("/.")]
    return ("{python}", "-I", "-S", "-c", _LINK, *links, "--", *argv) if links else tuple(argv)


def _in_code(written: str) -> bool:
    return not written.startswith(("/", "~"))
