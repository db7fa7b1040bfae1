"""Settings, tags, commit messages and the context of a proposer."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sessions import start, state_of
from targets import make_bowl

from agent.errors import EnvironmentProblem, UsageError
from agent.ledger.events import SessionStarted
from agent.ledger.state import State
from agent.repo.messages import accepted_message, candidate_message, subject_line, trailer_name
from agent.rundir.directory import RunDirectory, find_runs, new_tag
from agent.rundir.results import result_line
from agent.session.context import describe
from agent.settings import Settings, make_settings
from agent.target import Budget, load_target, parse_budget
from agent.text import plain
from agent.types import Measurement, Proposal, Record, Verdict
from agent.workers import runtime as workplace
from agent.workers.runtime import find_device

BEFORE = Budget("seconds", 300, 300)


@pytest.mark.parametrize(
    ("text", "kind", "amount"),
    [("300s", "seconds", 300), ("5m", "seconds", 300), ("1h", "seconds", 3600), ("0.5s", "seconds", 0.5),
     ("200steps", "steps", 200), ("1e6tokens", "tokens", 1_000_000), (" 20 steps ", "steps", 20)],
)  # fmt: skip
def test_parse_budget_reads_units(text: str, kind: str, amount: float) -> None:
    budget = parse_budget(text, BEFORE)
    assert (budget.kind, budget.amount) == (kind, amount)
    assert budget.startup_seconds == BEFORE.startup_seconds


@given(st.text(max_size=12))
def test_parse_budget_rejects_other_text(text: str) -> None:
    try:
        budget = parse_budget(text, BEFORE)
    except UsageError:
        return
    assert budget.amount > 0


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


# commit messages

HOSTILE = "\x1b]0;owned\x07Raise\x1b[31m the rate\u202e\x00\nSigned-off-by: Nobody <x@y>\n\nTrial: 99"


def test_model_text_cannot_forge_trailers_or_control_characters() -> None:
    proposal = Proposal("code", "llm", "p", "d", subject=HOSTILE, rationale=HOSTILE, model="evil\nVal-Bpb: 0.1")
    told = record(7, proposal=proposal, verdict=Verdict("keep", 2.5, 2.6, 0.1, 0.01, 2, 4, 5, ""))
    for message in (
        accepted_message(told, State(session=SessionStarted(metric="val_bpb", tag="t"))),
        candidate_message(told),
    ):
        assert not any(c in message for c in "\x1b\x00\x07\u202e")
        lines = message.splitlines()
        assert [line for line in lines if line.startswith("Trial:")] == ["Trial: 7"]
        assert not [line for line in lines if line.startswith(("Signed-off-by:", "Val-Bpb: 0.1"))]
        assert len(lines[0]) <= 72


@given(st.text(max_size=300), st.text(max_size=600))
def test_any_text_makes_valid_commit_message(subject: str, rationale: str) -> None:
    proposal = Proposal("code", "llm", "p", "d", subject=subject, rationale=rationale)
    message = candidate_message(record(3, proposal=proposal))
    assert message.split("\n")[0].strip()
    assert message.rstrip("\n").split("\n")[-2:] == ["Trial: 3", "Proposer: code"]
    assert plain(message) == message
    message.encode()


def test_trailer_names() -> None:
    assert [trailer_name(m) for m in ("val_bpb", "loss", "!")] == ["Val-Bpb", "Loss", "Value"]
    assert subject_line(record(4)) == "Trial 4"


# the start of a session


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
    state = State(
        session=SessionStarted(baseline="base"),
        records=(record(1, runs=(replace(seen, commit="c"), replace(test, commit="c"))),),
        runs={"base": (seen, test)},
    )
    repo = SimpleNamespace(read=lambda _commit, _path: "x = 1\n")
    target = load_target(make_bowl(tmp_path / "target"))[0]
    parts = SimpleNamespace(repo=repo, target=target, settings=Settings(), device=find_device(Settings(device="cpu")))
    directory = RunDirectory(tmp_path, "night")
    context = describe(state, cast(Any, parts), directory)
    assert context.best == 3.0
    assert "9.9" not in repr(context)


def test_find_device(monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_device(make_settings({"device": "cpu", "threads": 3}, None)).threads == 3
    monkeypatch.setattr(workplace, "gpus", lambda: {"GPU-a": "H200", "GPU-b": "A100"})
    assert find_device(Settings(device="auto")).uuid == "GPU-a"
    assert find_device(Settings(device="GPU-b")).uuid == "GPU-b"
    monkeypatch.setattr(workplace, "gpus", dict)
    with pytest.raises(EnvironmentProblem, match="nvidia-smi"):
        find_device(Settings(device="cuda"))
    far = find_device(Settings(device="cuda", ray_address="head:6379"))
    assert (far.kind, far.uuid) == ("cuda", ""), "Ray picks the GPUs on its nodes"
    with pytest.raises(UsageError, match="Ray"):
        find_device(Settings(device="GPU-b", ray_address="head:6379"))


def test_ray_address_without_ray_names_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)  # import raises ImportError
    target = make_bowl(tmp_path / "target")
    with pytest.raises(EnvironmentProblem, match=r"overnight\[ray\]"):
        start(target, tmp_path / "runs", ray_address="local")
