"""Faults of the machine: they never count against an idea, and a resume continues. Table: docs/how-to/unattended.md."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import budgets
import pytest
from openai_server import Answer, OpenAIServer
from sessions import check_whole, refs_of, resume, start, state_of
from targets import TOML, TRAIN, git, make_bowl

from agent.errors import EnvironmentProblem, UsageError
from agent.ledger import journal as ledger
from agent.ledger.events import name_of
from agent.ledger.journal import read
from agent.llm import retries
from agent.patch.apply import unified_diff
from agent.repo.refs import Refs
from agent.rundir.directory import RunDirectory
from agent.session.parts import MODEL_PATIENCE

SETTINGS = {"policy": "greedy", "calibrate": 1, "seed": 1, "trials": 2}  # trial 1 is kept


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return make_bowl(tmp_path / "target")


def at(monkeypatch: pytest.MonkeyPatch, when: str, what: str, count: int, act: Callable[[], None]) -> list[str]:
    """Call ``act`` before or after the ``count``-th time that an event is written, or a ref moved (``move``)."""
    seen: list[str] = []

    def wrap(real: Callable[..., Any], called: str) -> Callable[..., Any]:
        def wrapped(self: Any, first: Any, *rest: Any, **named: Any) -> Any:
            due = False
            if (called or name_of(first)) == what:
                seen.append(what)
                due = len(seen) == count
            if due and when == "before":
                act()
            result = real(self, first, *rest, **named)
            if due and when == "after":
                act()
            return result

        return wrapped

    monkeypatch.setattr(ledger.Ledger, "append", wrap(ledger.Ledger.append, ""))
    monkeypatch.setattr(Refs, "move", wrap(Refs.move, "move"))
    return seen


# a full disk


class Disk:
    """A small file system, which can be filled to the last byte."""

    def __init__(self, path: Path):
        self.path = path

    def fill(self) -> None:
        for name, size in (("big", 1 << 16), ("small", 1)):
            try:
                with (self.path / f"filler-{name}").open("wb", buffering=0) as file:
                    while True:
                        file.write(b"x" * size)
            except OSError:
                continue

    def free(self) -> None:
        for filler in self.path.glob("filler-*"):
            filler.unlink()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    path = tmp_path / "disk"
    path.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", path], capture_output=True)
    if mounted.returncode:
        pytest.skip("a small file system needs root")
    yield Disk(path)
    subprocess.run(["umount", "--lazy", path], check=True)


# One point for each write that can fail: an event, a file of the run directory, a git object, a ref, a temporary file.
POINTS = [
    ("runs", "before", "session", 1),
    ("runs", "after", "run_started", 2),  # the log of a run
    ("runs", "before", "asked", 1),
    ("runs", "after", "asked", 1),  # files of the trial
    ("runs", "after", "judged", 1),
    ("runs", "after", "told", 2),  # results.tsv
    ("repository", "after", "asked", 1),  # a candidate
    ("repository", "before", "move", 2),  # the branch
    ("repository", "after", "judged", 1),  # an accepted commit
    ("scratch", "before", "run_started", 2),
]


@pytest.mark.parametrize(("where", "when", "what", "count"), POINTS)
def test_full_disk_ends_session_without_losing_ideas(
    tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch, where: str, when: str, what: str, count: int
) -> None:
    target = make_bowl((disk.path if where == "repository" else tmp_path) / "target")
    runs = (disk.path if where == "runs" else tmp_path) / "runs"
    if where == "scratch":
        monkeypatch.setattr(tempfile, "tempdir", str(disk.path))
    with monkeypatch.context() as patch:
        seen = at(patch, when, what, count, disk.fill)
        said = "space"
        try:
            start(target, runs, **SETTINGS)
        except EnvironmentProblem as error:
            said = str(error)
        assert "space" in said
        assert len(seen) >= count, "the point was never reached"
    disk.free()
    directory = resume(runs)
    check_whole(directory, target, 2)
    assert {r.status for r in state_of(directory).records} == {"ok"}, "a full disk counts against an idea"


# the repository


def lock(target: Path, name: str) -> Path:
    place = target / ".git" / f"{name}.lock"
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text("")
    return place


def test_stale_ref_lock_is_named_and_resume_continues(
    target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.repo.git.LOCK_SECONDS", 0.2)
    held: list[Path] = []
    with monkeypatch.context() as patch:
        at(patch, "before", "judged", 1, lambda: held.append(lock(target, "refs/autoresearch/night/head")))
        with pytest.raises(EnvironmentProblem, match=r"cannot move refs/autoresearch/night/head.*head\.lock"):
            start(target, tmp_path / "runs", **SETTINGS)
    held[0].unlink()
    check_whole(resume(tmp_path / "runs"), target, 2)


def test_short_ref_lock_is_waited_for(target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.repo.git.LOCK_SECONDS", budgets.PROGRAM_SECONDS)

    def hold() -> None:
        place = lock(target, "refs/autoresearch/night/head")
        subprocess.Popen(["sh", "-c", f"sleep 0.5; rm '{place}'"])

    at(monkeypatch, "before", "judged", 1, hold)
    check_whole(start(target, tmp_path / "runs", **SETTINGS), target, 2)


def test_locked_index_does_not_matter(target: Path, tmp_path: Path) -> None:
    held = [lock(target, name) for name in ("index", "HEAD", "config")]
    check_whole(start(target, tmp_path / "runs", **SETTINGS), target, 2)
    assert all(place.exists() for place in held)


@pytest.mark.parametrize("name", ["head", "0001"])
def test_ref_deleted_during_session_is_restored(
    target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    with monkeypatch.context() as patch:
        at(patch, "after", "asked", 2,
           lambda: git(target, "update-ref", "-d", f"refs/autoresearch/night/{name}") and None)  # fmt: skip
        start(target, tmp_path / "runs", **SETTINGS)
    resume(tmp_path / "runs")
    check_whole(RunDirectory(tmp_path / "runs", "night"), target, 2)


def test_branch_moved_during_session_stays_there(target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def move() -> None:
        tree = git(target, "rev-parse", "HEAD^{tree}")
        mine = git(target, "commit-tree", tree, "-p", "HEAD", "-m", "Mine")
        git(target, "update-ref", "refs/heads/autoresearch/night", mine)

    at(monkeypatch, "after", "asked", 1, move)
    directory = start(target, tmp_path / "runs", **SETTINGS)
    state = state_of(directory)
    assert state.kept
    assert git(target, "log", "-1", "--format=%s", "autoresearch/night") == "Mine"
    assert refs_of(target)["head"] == state.head
    assert "was moved to" in directory.log.read_text()


# the clock

FAKETIME = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)


@pytest.mark.skipif(FAKETIME is None, reason="needs libfaketime (Debian: faketime)")
def test_clock_set_back_changes_only_times(tmp_path: Path) -> None:
    runs, clock = tmp_path / "runs", tmp_path / "clock"
    clock.write_text("+0\n")
    # The first trial waits until the clock is set back; the others outlast the second in which libfaketime reads it.
    wait = f"import pathlib, time\n\nwhile RATE != 0.01 and '-' not in pathlib.Path({str(clock)!r}).read_text():\n"
    slow = TRAIN.replace("\nnoise =", f"{wait}    time.sleep(0.02)\ntime.sleep(0.4)\nnoise =")
    target = make_bowl(tmp_path / "target", slow, TOML.replace("seconds = 20", "seconds = 600"))
    words = ["--target", target, "--runs", runs, "--tag", "night", "--proposer", "cma-es", "--sandbox", "process",
             "--policy", "greedy", "--calibrate", "2", "--trials", "4", "--seed", "1", "--hours", "1"]  # fmt: skip
    environment = {**os.environ, "LD_PRELOAD": str(FAKETIME), "FAKETIME_TIMESTAMP_FILE": str(clock),
                   "FAKETIME_CACHE_DURATION": "1", "DONT_FAKE_MONOTONIC": "1"}  # fmt: skip
    session = subprocess.Popen([sys.executable, "-m", "agent.cli", "run", *map(str, words)], env=environment,
                               stderr=subprocess.PIPE, text=True)  # fmt: skip
    directory = RunDirectory(runs, "night")
    end = time.monotonic() + budgets.PROGRAM_SECONDS
    while not (directory.ledger.exists() and state_of(directory).records):
        assert session.poll() is None
        assert time.monotonic() < end
        time.sleep(0.05)
    clock.write_text("-5h\n")
    _, err = session.communicate(timeout=budgets.PROGRAM_SECONDS)
    assert session.returncode == 0, err
    check_whole(directory, target, 4)
    times = [event.time for event in read(directory.ledger)]
    assert min(b - a for a, b in pairwise(times)) < -4 * 3600, "the clock was never set back"
    state = state_of(directory)
    assert all(0 <= s < 3600 for runs in state.runs.values() for m in runs for s in m.seconds.values())
    assert all(record.asking >= 0 for record in state.records)
    assert state.ended == "all 4 trials done"


# the model server


def reply(old: str, new: str) -> str:
    diff = unified_diff(TRAIN, TRAIN.replace(old, new), "train.py")
    return f"Category: optimiser\nSubject: An edit\nRationale: Why not.\n\n```diff\n{diff}```\n"


GOOD = [reply("RATE = 0.01", "RATE = 0.05"), reply("value() + noise:.6f", "noise + value():.6f")]


FAULTS = [
    Answer(status=429, retry_after="0"),
    Answer(status=500, retry_after="0"),
    Answer(status=503, retry_after="0"),
    Answer(refuse=True),
    Answer(break_after=20),
    Answer(raw="<html>bad gateway</html>", content_type="text/html"),
    Answer(raw='{"choices": []}'),
]


def test_failing_model_server_costs_no_idea(target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "FIRST_PAUSE", 0.05)
    ideas = [reply("RATE = 0.01", f"RATE = 0.00{k}") for k in range(2, 9)]  # all worse, so that all apply
    answers = [answer for fault, idea in zip(FAULTS, ideas, strict=True) for answer in (fault, fault, idea)]
    with OpenAIServer(answers) as server:
        directory = start(target, tmp_path / "runs", proposer="code", trials=7, llm_base_url=server.base_url)
    assert [r.status for r in state_of(directory).records] == ["ok"] * 7
    check_whole(directory, target, 7)


def test_session_waits_for_absent_model_server(target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MODEL_PATIENCE, "wait", 0.2)
    with OpenAIServer([Answer(status=503, retry_after="0")] * 40 + GOOD) as server:
        directory = start(target, tmp_path / "runs", proposer="code", trials=2, llm_base_url=server.base_url)
    assert [r.status for r in state_of(directory).records] == ["ok", "ok"]
    assert "note: waiting for the model server" in directory.log.read_text()
    check_whole(directory, target, 2)


def test_on_llm_failure_stop_ends_session(target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MODEL_PATIENCE, "stop", 0.2)
    settings = {"proposer": "code", "trials": 2, "on_llm_failure": "stop"}
    gone = Answer(status=503, retry_after="0")
    with OpenAIServer(GOOD[:1], at_end=gone) as server, pytest.raises(EnvironmentProblem, match="gave no answer"):
        start(target, tmp_path / "runs", llm_base_url=server.base_url, **settings)
    with OpenAIServer(GOOD[1:]) as server:
        directory = resume(tmp_path / "runs", llm_base_url=server.base_url)
    check_whole(directory, target, 2)


def test_server_with_another_model_ends_session(target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with OpenAIServer(GOOD) as server:
        with monkeypatch.context() as patch:
            at(patch, "after", "told", 2, lambda: server.models.update({"other": server.models.pop("tiny")}))
            with pytest.raises(EnvironmentProblem, match=r"tiny.*other"):
                start(target, tmp_path / "runs", proposer="code", trials=2, llm_base_url=server.base_url)
        directory = resume(tmp_path / "runs")
    records = state_of(directory).records
    assert [r.proposal.model for r in records] == ["tiny", "other"], "the ledger has the model of each idea"
    check_whole(directory, target, 2)


def test_resume_works_without_trials_folder(target: Path, tmp_path: Path) -> None:
    """The folder of trials is for people only."""
    directory = start(target, tmp_path / "runs", **SETTINGS)
    shutil.rmtree(directory.path / "trials")
    directory.results.write_text("torn")
    directory.progress.write_text("")
    check_whole(resume(tmp_path / "runs", trials=3), target, 3)


# objects that git pruned


def prune(target: Path) -> None:
    """Delete every ref of the session, and then all objects that nothing refers to."""
    for ref in git(
        target, "for-each-ref", "--format=%(refname)", "refs/autoresearch/", "refs/heads/autoresearch/"
    ).split():
        git(target, "update-ref", "-d", ref)
    git(target, "reflog", "expire", "--expire=now", "--all")
    git(target, "prune", "--expire=now")


@pytest.mark.parametrize("moment", ["candidate", "measured", "judged", "moved", "told"])
def test_resume_rebuilds_pruned_commits(
    target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    def die() -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        at(patch, "after", moment, 3 if moment in ("measured", "told") else 1, die)
        with pytest.raises(KeyboardInterrupt):
            start(target, tmp_path / "runs", **SETTINGS)
    prune(target)
    check_whole(resume(tmp_path / "runs", trials=3), target, 3)


def test_resume_restores_all_refs_after_prune(target: Path, tmp_path: Path) -> None:
    directory = start(target, tmp_path / "runs", **{**SETTINGS, "trials": 6})
    before = refs_of(target, directory.tag)
    assert len(state_of(directory).kept) > 1
    prune(target)
    assert list(refs_of(target, directory.tag)) == ["refs/heads/main"]
    resume(tmp_path / "runs", trials=7)
    after = refs_of(target, directory.tag)
    assert {name: after[name] for name in before if name.isdigit()} == {k: v for k, v in before.items() if k.isdigit()}
    check_whole(directory, target, 7)


def test_commit_that_cannot_be_rebuilt_is_named(target: Path, tmp_path: Path) -> None:
    directory = start(target, tmp_path / "runs", **{**SETTINGS, "trials": 6})
    state, text, other = state_of(directory), directory.ledger.read_text(), "0123456789" * 4
    reverted = next(record for record in state.records if record.decision == "revert")
    prune(target)
    directory.ledger.write_text(text.replace(str(reverted.candidate), other))
    resume(tmp_path / "runs", trials=7)
    assert f"commits of attempts {reverted.number} were pruned" in directory.log.read_text()
    prune(target)
    directory.ledger.write_text(text.replace(str(state.kept[0].candidate), other))
    with pytest.raises(UsageError, match=other[:12]):
        resume(tmp_path / "runs", trials=7)
