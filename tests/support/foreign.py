"""The look-alikes of tests/targets as a user has them, and edits that a model could propose for each."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from places import TESTS
from targets import git

from agent.patch.apply import unified_diff

SOURCES = TESTS / "targets"


@dataclass(frozen=True)
class LookAlike:
    """One project: what makes its data, and a change of its code that is surely better."""

    name: str
    script: str
    metric: str
    better: tuple[str, str]
    prepare: str = ""
    in_place: bool = False  # a git repository of its own, where target.toml is added


ALL = (
    LookAlike(
        "autoresearch",
        "train.py",
        "val_bpb",
        # the counts themselves are the optimum of a bigram model, however many steps the others got
        ("\nkept = (1 - SMOOTHING / 10) * probabilities(val[:-1]) + SMOOTHING / 10 / VOCAB_SIZE\n",
         "\ncounts = np.full_like(weights, 0.1)\nnp.add.at(counts, (train[:-1], train[1:]), 1)\n"
         "weights = np.log(counts)\nkept = probabilities(val[:-1])\n"),
        prepare="prepare.py",
    ),
    LookAlike(
        "nanogpt",
        "train.py",
        "val_loss",
        ("\nmomentum = np", '\nnp.add.at(table, (data["train"][:-1], data["train"][1:]), 1)\n'
         "table = np.log(np.maximum(table, 0) + 1e-3)\nmomentum = np"),
        prepare="data/tiny/prepare.py",
        in_place=True,
    ),
    LookAlike(
        "classifier",
        "classify.py",
        "test_accuracy",
        ("    model.fit(", "    from sklearn.svm import SVC\n\n    model = SVC()\n    model.fit("),
    ),
)  # fmt: skip


def user_project(look_alike: LookAlike, folder: Path) -> Path:
    """A copy with its data prepared; below ``HOME``, for the one that keeps them there."""
    shutil.copytree(SOURCES / look_alike.name, folder)
    if look_alike.prepare:
        subprocess.run([sys.executable, look_alike.prepare], cwd=folder, check=True)
    if look_alike.in_place:
        git(folder, "init", "-q", "-b", "main")
        git(folder, "add", "-A")
        git(folder, "commit", "-q", "-m", "Begin")
    return folder


def reply(look_alike: LookAlike, source: str) -> str:
    """A model's reply with the better code."""
    old, new = look_alike.better
    assert source.count(old) == 1, old
    diff = unified_diff(source, source.replace(old, new), look_alike.script)
    return f"Category: architecture\nSubject: Use the counts\nRationale: They are known.\n\n```diff\n{diff}```\n"
