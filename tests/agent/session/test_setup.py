"""The start of a session: run.toml, and the context of a proposer."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from sessions import start, state_of
from targets import TRAIN, git, make_bowl

from agent.errors import EnvironmentProblem, UsageError
from agent.ledger.events import SessionStarted
from agent.ledger.state import State
from agent.proposers.memory import Memory
from agent.repo.repo import Repo
from agent.rundir.directory import RunDirectory
from agent.session.context import describe
from agent.settings import Settings
from agent.target import load_target
from agent.types import Measurement, Proposal, Record
from agent.workers.runtime import find_device


def test_run_toml_has_all_settings(tmp_path: Path) -> None:
    target = make_bowl(tmp_path / "target")
    directory = start(target, tmp_path / "runs", trials=1, seed=11)
    saved = directory.read_settings()
    assert saved["run"]["seed"] == 11
    assert saved["run"]["target"] == str(target)
    assert saved["target"]["budget"]["amount"] == 20
    assert "python" in saved["versions"]
    assert state_of(directory).session.tag == "night"


def test_context_excludes_test_split(tmp_path: Path) -> None:
    test = Measurement("base", "test", 1, "cpu", "ok", 9.9)
    seen = Measurement("base", "calibrate", 1, "cpu", "ok", 3.0)
    runs = (replace(seen, commit="c"), replace(test, commit="c"))
    state = State(
        session=SessionStarted(baseline="base"),
        records=(Record(1, Proposal("code", "llm", "p", "d", ending="duplicate"), runs=runs),),
        runs={"base": (seen, test)},
    )
    repo = SimpleNamespace(read=lambda _commit, _path: "x = 1\n")
    target = load_target(make_bowl(tmp_path / "target"))[0]
    parts = SimpleNamespace(repo=repo, target=target, settings=Settings(), device=find_device(Settings(device="cpu")))
    directory = RunDirectory(tmp_path, "night")
    context = describe(state, cast(Any, parts), directory, Memory())
    assert context.best == 3.0
    assert "9.9" not in repr(context)


def test_ray_address_without_ray_names_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)  # import raises ImportError
    target = make_bowl(tmp_path / "target")
    with pytest.raises(EnvironmentProblem, match=r"overnight\[ray\]"):
        start(target, tmp_path / "runs", ray_address="local")


@pytest.mark.parametrize(
    ("added", "notes"), [("", ""), ("Try LION.\n\nKeep LR.\n", "Try LION.\n\nKeep LR."), (None, "")]
)
def test_context_excludes_placeholder_of_notes(tmp_path: Path, added: str | None, notes: str) -> None:
    directory = RunDirectory(tmp_path, "night")
    directory.create({})
    if added is None:
        directory.notes.unlink()
    else:
        directory.notes.write_text(directory.notes.read_text() + added)
    state = State(session=SessionStarted(baseline="base"))
    target = load_target(make_bowl(tmp_path / "target"))[0]
    repo = SimpleNamespace(read=lambda _commit, _path: "x = 1\n")
    parts = SimpleNamespace(repo=repo, target=target, settings=Settings(), device=find_device(Settings(device="cpu")))
    assert describe(state, cast(Any, parts), directory, Memory()).notes == notes


@pytest.mark.parametrize(
    ("data", "place"),
    [
        (b"# -*- coding: latin-1 -*-\n# M\xfcller\n", r"train\.py:2.*latin-1"),
        (b"x = '\xff'\n", r"train\.py:1"),
        (TRAIN.encode("utf-16"), r"train\.py"),
        (TRAIN.replace("\n", "\r").encode(), "carriage return"),
    ],
)
def test_source_in_other_encoding_is_refused(tmp_path: Path, data: bytes, place: str) -> None:
    target = make_bowl(tmp_path / "target")
    (target / "train.py").write_bytes(data)
    git(target, "commit", "-qam", "encoding")
    with pytest.raises(UsageError, match=place):
        start(target, tmp_path / "runs", trials=1)
    assert not (tmp_path / "runs").exists()


def test_source_with_byte_order_mark_runs(tmp_path: Path) -> None:
    target = make_bowl(tmp_path / "target", train="\ufeff" + TRAIN)
    state = state_of(start(target, tmp_path / "runs", trials=1))
    assert [run.status for run in state.records[0].runs] == ["ok"]
    candidate = state.records[0].candidate
    assert candidate is not None
    assert Repo(target).read(candidate, "train.py").startswith("\ufeff")
