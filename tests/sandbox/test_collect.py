"""Only requested regular files within their bounds are collected."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from sandbox.collect import Dropped, check_name, collect, write_bounded
from sandbox.types import Collect


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "out"
    place.mkdir()
    return place


def run_collect(folder: Path, target: Path, *names: str, limit: int = 100) -> tuple[set[str], list[str]]:
    problems: list[str] = []
    found = collect(folder, [Collect(name, limit) for name in names], target, problems)
    assert all(path == target / name and path.is_file() for name, path in found.items())
    return set(found), problems


def test_absent_file_is_no_problem(folder: Path, tmp_path: Path) -> None:
    (folder / "a").write_bytes(b"\0\xff")
    assert run_collect(folder, tmp_path / "to", "a", "b") == ({"a"}, [])
    assert (tmp_path / "to" / "a").read_bytes() == b"\0\xff"


def test_unrequested_files_stay(folder: Path, tmp_path: Path) -> None:
    (folder / "a").touch()
    (folder / "b").touch()
    run_collect(folder, tmp_path / "to", "a")
    assert [p.name for p in (tmp_path / "to").iterdir()] == ["a"]


@pytest.mark.parametrize(("size", "collected"), [(0, True), (100, True), (101, False)])
def test_file_up_to_its_bound_is_collected(folder: Path, tmp_path: Path, size: int, collected: bool) -> None:
    (folder / "a").write_bytes(b"x" * size)
    found, problems = run_collect(folder, tmp_path / "to", "a")
    assert (found == {"a"}) is collected
    assert bool(problems) is not collected


def test_sparse_file_counts_with_full_size(folder: Path, tmp_path: Path) -> None:
    with (folder / "a").open("wb") as file:
        file.truncate(1 << 40)
    assert run_collect(folder, tmp_path / "to", "a")[0] == set()


def test_links_pipes_and_folders_are_dropped(folder: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("of the host")
    (folder / "symlink").symlink_to(secret)
    os.link(secret, folder / "hardlink")
    os.mkfifo(folder / "pipe")
    (folder / "folder").mkdir()
    names = ("symlink", "hardlink", "pipe", "folder")
    found, problems = run_collect(folder, tmp_path / "to", *names)
    assert found == set()
    assert [p.partition(":")[0] for p in problems] == list(names)


def test_unreadable_content_is_blamed_on_the_job(tmp_path: Path) -> None:
    def read(_size: int) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    with pytest.raises(Dropped, match="cannot be read"):
        write_bounded(read, tmp_path / "file", 10)
    assert not (tmp_path / "file").exists()


def test_missing_output_folder_is_a_problem(tmp_path: Path) -> None:
    found, problems = run_collect(tmp_path / "none", tmp_path / "to", "a")
    assert found == set()
    assert "could not be read" in problems[0]


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/a", "../a", "a\0"])
def test_only_plain_names_are_accepted(name: str) -> None:
    with pytest.raises(ValueError):
        check_name(name)
