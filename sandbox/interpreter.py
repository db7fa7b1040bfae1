"""The Python of the host that runs a job, and the folders that a sandbox has to show for it."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

_FOLDERS = "import json, sys; print(json.dumps([sys.base_prefix, sys.prefix, *sys.path]))"
SECONDS = 60.0  # for the interpreter to start


@dataclass(frozen=True)
class Interpreter:
    """Inside Docker a job has the image's interpreter instead."""

    path: str = sys.executable
    folders: tuple[str, ...] = (sys.base_prefix, sys.prefix)  # its environment and its installation


@functools.cache
def find_interpreter(path: str) -> Interpreter:
    """Ask an interpreter for its folders: environment, installation, and folders that .pth files add.

    Raises:
        ValueError: ``path`` is no Python that starts.
    """
    try:
        done = subprocess.run([path, "-I", "-c", _FOLDERS], capture_output=True, text=True, timeout=SECONDS)
        found = [folder for folder in json.loads(done.stdout) if os.path.isdir(folder)]  # noqa: PTH112
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        raise ValueError(f"no Python that starts ({error})") from None
    real = [os.path.realpath(folder) for folder in found]
    folders = dict.fromkeys([*found[:2], *real[:2]])
    outside = [folder for folder in found[2:] if not any(Path(folder).is_relative_to(parent) for parent in folders)]
    return Interpreter(os.path.abspath(path), (*folders, *outside))  # noqa: PTH100


OWN = Interpreter()
