"""What comes back from a job's folder: only what was asked for, only regular files, only up to their bounds."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sandbox.collect import check_name, collect
from sandbox.types import Collect


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "out"
    place.mkdir()
    return place


def bring(folder: Path, target: Path, *names: str, limit: int = 100) -> tuple[set[str], list[str]]:
    problems: list[str] = []
    found = collect(folder, [Collect(name, limit) for name in names], target, problems)
    assert all(path == target / name and path.is_file() for name, path in found.items())
    return set(found), problems


def test_a_regular_file_comes_back_and_an_absent_one_is_no_problem(folder: Path, tmp_path: Path) -> None:
    (folder / "a").write_bytes(b"\0\xff")
    assert bring(folder, tmp_path / "to", "a", "b") == ({"a"}, [])
    assert (tmp_path / "to" / "a").read_bytes() == b"\0\xff"


def test_what_was_not_asked_for_stays(folder: Path, tmp_path: Path) -> None:
    (folder / "a").touch()
    (folder / "b").touch()
    bring(folder, tmp_path / "to", "a")
    assert [p.name for p in (tmp_path / "to").iterdir()] == ["a"]


@pytest.mark.parametrize(("size", "comes"), [(0, True), (100, True), (101, False)])
def test_a_file_may_be_as_large_as_its_bound(folder: Path, tmp_path: Path, size: int, comes: bool) -> None:
    (folder / "a").write_bytes(b"x" * size)
    found, problems = bring(folder, tmp_path / "to", "a")
    assert (found == {"a"}) is comes
    assert bool(problems) is not comes


def test_a_file_with_a_hole_counts_as_large(folder: Path, tmp_path: Path) -> None:
    with (folder / "a").open("wb") as file:
        file.truncate(1 << 40)
    assert bring(folder, tmp_path / "to", "a")[0] == set()


def test_links_pipes_sockets_and_folders_do_not_come_back(folder: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("of the host")
    (folder / "symlink").symlink_to(secret)
    os.link(secret, folder / "hardlink")
    os.mkfifo(folder / "pipe")
    (folder / "folder").mkdir()
    names = ("symlink", "hardlink", "pipe", "folder")
    found, problems = bring(folder, tmp_path / "to", *names)
    assert found == set()
    assert [p.partition(":")[0] for p in problems] == list(names)


def test_the_folder_itself_may_not_be_a_link_to_nowhere(tmp_path: Path) -> None:
    found, problems = bring(tmp_path / "none", tmp_path / "to", "a")
    assert found == set()
    assert "could not be read" in problems[0]


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/a", "../a", "a\0"])
def test_only_plain_names_can_be_asked_for(name: str) -> None:
    with pytest.raises(ValueError):
        check_name(name)
