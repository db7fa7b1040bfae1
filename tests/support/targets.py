"""A target whose training takes a fraction of a second: for tests of everything around it.

It prints its value (``score = "stdout"``): a quadratic bowl over its hyperparameters plus noise by seed, so that a
session over it is the same every time, and some edits really are better than others.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

_made = tempfile.TemporaryDirectory(prefix="overnight-test-targets-")

TRAIN = '''"""Finds its own minimum."""

import math
import os
import random

# --- hyperparameters ---
RATE = 0.01  # best at 0.1
DEPTH = 4  # best at 6
# --- end of hyperparameters ---


def value():
    return 3.0 + 0.05 * math.log10(RATE / 0.1) ** 2 + 0.002 * (DEPTH - 6) ** 2


noise = random.Random(int(os.environ["OVERNIGHT_SEED"])).gauss(0, 0.002)
print(f"val_bpb: {value() + noise:.6f}", flush=True)
'''

TOML = r"""[target]
name = "bowl"
editable = ["train.py"]
train = ["python", "train.py"]
score = "stdout"
pattern = '^val_bpb:\s*(\S+)'

[budget]
seconds = 20

[limits]
memory_gb = 1

[[hyperparameters]]
name = "RATE"
low = 0.0001
high = 1.0
log = true

[[hyperparameters]]
name = "DEPTH"
low = 1
high = 12
"""


def git(folder: Path, *words: str) -> str:
    """What a git command prints; it fails the test when git fails."""
    identity = ["-c", "user.name=User", "-c", "user.email=user@localhost", "-c", "commit.gpgSign=false"]
    done = subprocess.run(["git", "-C", str(folder), *identity, *words], capture_output=True, text=True)
    assert done.returncode == 0, f"git {' '.join(words)}: {done.stderr}"
    return done.stdout.strip()


def make_bowl(folder: Path, train: str = TRAIN, toml: str = TOML) -> Path:
    """A git repository with the target and one commit."""
    shutil.copytree(_bowl(train, toml, os.environ.get("GIT_DEFAULT_HASH", "")), folder)
    return folder


@cache
def _bowl(train: str, toml: str, _hash: str) -> Path:
    folder = Path(_made.name) / str(len(list(Path(_made.name).iterdir())))
    folder.mkdir()
    (folder / "train.py").write_text(train)
    (folder / "target.toml").write_text(toml)
    git(folder, "init", "-q", "-b", "main", "--template=")
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "Begin")
    return folder
