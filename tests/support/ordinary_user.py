"""Commands that root starts as an ordinary user, also if Python or the checkout lie in a private folder such as /root.

A mount namespace shows the needed folders in an empty, readable folder in place of the private one.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

USER = 64001  # needs no entry in /etc/passwd

# Arguments: pairs of a private folder and a needed folder in it, "--", the command.
_OPEN = """
import os, subprocess, sys, tempfile
cut = sys.argv.index("--")
pairs = list(zip(sys.argv[1:cut:2], sys.argv[2:cut:2]))
def mount(*words):
    subprocess.run(["mount", *words], check=True)
held = tempfile.mkdtemp(dir="/dev/shm")
mount("-t", "tmpfs", "-o", "mode=0755", "tmpfs", held)
for number, (_, needed) in enumerate(pairs):
    os.mkdir(f"{held}/{number}")
    mount("--bind", needed, f"{held}/{number}")
for private in {private for private, _ in pairs}:
    mount("-t", "tmpfs", "-o", "mode=0755", "tmpfs", private)
for number, (_, needed) in enumerate(pairs):
    os.makedirs(needed)
    mount("--move", f"{held}/{number}", needed)
subprocess.run(["umount", held], check=True)
os.rmdir(held)
os.execvp(sys.argv[cut + 1], sys.argv[cut + 1:])
"""


def command(words: Iterable[str], needed: Iterable[Path]) -> list[str]:
    """``words`` as a command of ``USER``, who can read the ``needed`` folders."""
    become = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", *words]
    pairs = [(private, folder) for folder in _outermost(needed) if (private := _private(folder))]
    if not pairs:
        return become
    given = [str(path) for pair in pairs for path in pair]
    return ["unshare", "--mount", "--propagation", "private", sys.executable, "-c", _OPEN, *given, "--", *become]


def _outermost(folders: Iterable[Path]) -> list[Path]:
    found = sorted({folder.resolve() for folder in folders})
    return [folder for folder in found if not any(parent in found for parent in folder.parents)]


def _private(folder: Path) -> Path | None:
    """The highest folder above ``folder`` that other users cannot enter."""
    closed = [parent for parent in reversed(folder.parents) if not parent.stat().st_mode & 0o001]
    return closed[0] if closed else None
