"""Run directories: tags, the lock, results.tsv."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.errors import EnvironmentProblem, UsageError
from agent.rundir.directory import RunDirectory, find_runs, new_tag
from agent.rundir.results import result_line
from agent.types import Measurement, Proposal, Record, Verdict


def record(number: int, **fields: Any) -> Record:
    verdict = Verdict("revert", 3.0, 3.0, 0.0, None, 1, 1, 0, "")
    return replace(Record(number, Proposal("code", "llm", "p", "d"), "c", verdict=verdict, ended=0.0), **fields)


def test_new_tags_of_a_day_are_numbered(tmp_path: Path) -> None:
    first = new_tag(tmp_path)
    (tmp_path / first).mkdir()
    assert new_tag(tmp_path) == f"{first}-2"
    assert find_runs(tmp_path) == []
    assert find_runs(tmp_path / "nowhere") == []


@pytest.mark.parametrize("tag", ["", ".", "..", "a/b", "a b", "x.lock", "-a", "a..b", "ä", "a" * 65, "a\n"])
def test_tag_must_be_valid_branch_name(tmp_path: Path, tag: str) -> None:
    with pytest.raises(UsageError, match="--tag"):
        RunDirectory(tmp_path, tag)


def test_second_session_under_a_tag_is_a_usage_error(tmp_path: Path) -> None:
    RunDirectory(tmp_path, "night").create({"run": {"a": 1}})
    late = RunDirectory(tmp_path, "night")  # of a session that began at the same moment
    with pytest.raises(UsageError, match="resume night"):
        late.create({"run": {"a": 2}})
    assert late.read_settings() == {"run": {"a": 1}}


@contextmanager
def full_disk() -> Iterator[None]:
    """No byte can be written to any file."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def test_full_disk_leaves_no_half_directory(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path, "night")
    with full_disk(), pytest.raises(EnvironmentProblem, match="night"):
        directory.create({"run": {"a": 1}})
    directory.check_new()
    directory.create({"run": {"a": 1}})


def test_lock_on_full_disk_names_the_file(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path, "night")
    directory.create({"run": {"a": 1}})
    with full_disk(), pytest.raises(EnvironmentProblem, match="night/lock"), directory.lock():
        pass


def test_commands_name_a_folder_of_runs_that_is_not_the_default() -> None:
    assert RunDirectory(Path("runs"), "n").command("resume", "--trials", "3") == "overnight resume n --trials 3"
    assert RunDirectory(Path("/my runs"), "n").command("log") == "overnight log n --runs '/my runs'"


@pytest.mark.parametrize("tag", ["replay-night", "promote-night"])
def test_run_cannot_have_name_of_a_replay(tmp_path: Path, tag: str) -> None:
    with pytest.raises(UsageError, match=f"--tag {tag}"):
        RunDirectory(tmp_path, tag).check_new()


def test_lock_admits_one_session(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path, "night")
    directory.create({"run": {"a": None, "b": Path("x")}})
    assert directory.read_settings() == {"run": {"b": "x"}}
    assert not directory.running()
    with directory.lock():
        assert directory.running()
        with pytest.raises(UsageError, match="night"), RunDirectory(tmp_path, "night").lock():
            pass
    assert not directory.running()


IDEA = Proposal("code", "llm", "p", "d", subject="Idea")


def test_results_have_published_format() -> None:
    better = Verdict("keep", 0.9979, 1.0, 0.0021, None, 1, 1, 0, "")
    kept = record(1, proposal=IDEA, verdict=better, candidate="abcdef0123")
    failed = Measurement("c", "screen", 1, "cpu", "crash", None, peak_memory_gb=44.04)
    crash = record(2, runs=(failed,), verdict=Verdict("revert", None, 1.0, None, None, 0, 1, 0, ""))
    lost = Record(3, Proposal("code", "llm", "p", "", subject="tab\there\nand there", ending="duplicate"))
    assert result_line(kept) == "abcdef0\t0.997900\t0.0\tkeep\tIdea\n"
    assert result_line(crash) == "c\t0.000000\t44.0\tcrash\tcrash\n"
    assert result_line(lost) == "-------\t0.000000\t0.0\tcrash\ttab here and there\n"
