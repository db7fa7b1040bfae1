"""Folders that are hard to remove or to measure."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import budgets
import pytest

from sandbox.rmtree import remove_tree
from sandbox.supervisor import UNCOUNTABLE, disk_usage

DEEP = 3000  # levels: beyond Python's recursion limit and the length of a path
NOBODY = 65534

# Runs as an ordinary user: permissions do not bind root.
REMOVE = f"""
import os, sys
from pathlib import Path
from sandbox.rmtree import remove_tree
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid({NOBODY})
    os.setuid({NOBODY})
top = Path(sys.argv[1])
(top / "a/b/c").mkdir(parents=True)
(top / "a/b/file").touch()
for place in ("a/b/c", "a/b", "a", "."):
    (top / place).chmod(0)
remove_tree(top)
"""


def nest(folder: Path, levels: int = DEEP) -> None:
    here = os.open(folder, os.O_RDONLY)
    for _ in range(levels):
        os.mkdir("deep", dir_fd=here)
        below = os.open("deep", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=here))
    os.close(here)


@pytest.fixture
def filled(tmp_path: Path) -> Path:
    place = tmp_path / "job"
    place.mkdir()
    nest(place)
    return place


def test_removes_deeply_nested_folders(filled: Path) -> None:
    os.mkfifo(filled / "odd\n\x1b[2J")
    (filled / "link").symlink_to(filled.parent / "precious")
    (filled.parent / "precious").mkdir()
    remove_tree(filled)
    assert [p.name for p in filled.parent.iterdir()] == ["precious"]


def test_removes_folders_without_permissions(tmp_path: Path) -> None:
    place = tmp_path / "open" / "job"
    place.parent.mkdir()
    for folder in (tmp_path, tmp_path.parent, tmp_path.parent.parent, tmp_path.parent.parent.parent):
        if folder.stat().st_uid == os.getuid():
            folder.chmod(folder.stat().st_mode | 0o055)
    place.parent.chmod(0o777)
    done = subprocess.run(
        [sys.executable, "-c", REMOVE, str(place)], capture_output=True, text=True, timeout=budgets.PROGRAM_SECONDS
    )
    assert done.returncode == 0, done.stderr
    assert not place.exists()


def test_missing_folder_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    remove_tree(tmp_path / "none")
    assert [path.name for path in tmp_path.iterdir()] == ["other"]


def test_too_deep_folders_are_uncountable(filled: Path) -> None:
    assert disk_usage(str(filled)) == UNCOUNTABLE
    remove_tree(filled)


def test_disk_usage_counts_nested_files(tmp_path: Path) -> None:
    nest(tmp_path, 100)
    (tmp_path / "large").write_bytes(bytes(1 << 20))
    assert 1 << 20 <= disk_usage(str(tmp_path)) < 2 << 20
