"""A damaged ledger: damage is named, the rest is shown, and no session continues."""

from __future__ import annotations

import json
import random
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sessions import resume, start, state_of
from targets import make_bowl

from agent.cli.entry import main
from agent.ledger.events import Ended, ServerProblem, SessionStarted, encode
from agent.ledger.journal import Ledger, read
from agent.ledger.recovery import GONE, read_state
from agent.ledger.state import LedgerDamaged, State, fold
from agent.rundir.directory import RunDirectory


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes, State]:
    folder = tmp_path_factory.mktemp("night")
    directory = start(make_bowl(folder / "target"), folder / "runs", trials=6, policy="greedy")
    return folder, directory.ledger.read_bytes(), state_of(directory)


def read_bytes(data: bytes) -> tuple[State, list[str]]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ledger.jsonl"
        path.write_bytes(data)
        return read_state(path)


def spoilt(data: bytes, kind: str, trial: int) -> tuple[bytes, int]:
    """The ledger with the first event of this kind and trial cut in half, and its line number."""
    lines = data.split(b"\n")
    at = next(
        k for k, line in enumerate(lines) if line and (e := json.loads(line))["event"] == kind and e["trial"] == trial
    )
    lines[at] = lines[at][: len(lines[at]) // 2]
    return b"\n".join(lines), at + 1


@pytest.mark.parametrize("kind", ["asked", "candidate", "measured", "judged", "told"])
def test_trials_after_damaged_line_are_shown(night: tuple[Path, bytes, State], kind: str) -> None:
    _, data, whole = night
    damaged, number = spoilt(data, kind, 3)
    state, problems = read_bytes(damaged)
    assert f"ledger.jsonl, line {number}, is damaged" in problems[0]
    assert [r.number for r in state.records] == [r.number for r in whole.records]
    others = [k for k in range(6) if k != 2]
    found, wanted = (
        [replace(s.records[k], asking=0.0) for k in others]
        for s in (state, whole)
        # asking is the gap before the event
    )
    assert found == wanted
    assert (state.records[2].proposal.subject == GONE) == (kind == "asked")
    if kind == "measured":  # the verdict shows that it ran
        assert whole.records[2].status == state.records[2].status == "ok"


def test_events_without_a_trial_are_shown_beside_damage() -> None:
    events = [
        SessionStarted(time=1.0),
        ServerProblem(time=2.0, problem="p", action="noted"),
        Ended(time=3.0, reason="e"),
    ]
    state, problems = read_bytes(encode(events[0]) + b"{\n" + b"".join(map(encode, events[1:])))
    assert len(problems) == 1
    assert ([found.problem for found in state.server_problems], state.ended) == (["p"], "e")


@settings(max_examples=50)
@given(seed=st.integers(0, 10**9))
def test_reading_survives_any_damage(night: tuple[Path, bytes, State], seed: int) -> None:
    _, data, whole = night
    chance = random.Random(seed)
    spoiled = bytearray(data)
    for _ in range(chance.randrange(1, 20)):
        spoiled[chance.randrange(len(spoiled))] = chance.choice(b'\n{}"[]x0\xff')
    state, _ = read_bytes(bytes(spoiled))
    assert isinstance(state, State)
    assert read_bytes(data) == (whole, [])


@pytest.mark.parametrize(
    "words", [["list"], ["status"], ["watch"], ["log", "--all"], ["show", "night", "5"], ["report"]]
)
def test_reading_commands_name_damage_and_continue(
    words: list[str], night: tuple[Path, bytes, State], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, data, _ = night
    runs = folder / "runs"
    ledger = runs / "night" / "ledger.jsonl"
    damaged, number = spoilt(data, "judged", 3)
    ledger.write_bytes(damaged)
    capsys.readouterr()
    try:
        assert main([*words, "--runs", str(runs)]) == 0
    finally:
        ledger.write_bytes(data)
    out, err = capsys.readouterr()
    assert out
    if words == ["report"]:  # the page has the warnings
        assert f"line {number}, is damaged" in (runs / "night" / "report.html").read_text()
    else:
        assert f"line {number}, is damaged" in err


MISFITS = (
    '{"v": 1, "event": "told", "trial": 1}',
    '{"v": 1, "event": "told", "trial": 1, "time": ' + "9" * 400 + "}",
    '{"v": 1, "event": "candidate", "trial": 9999999, "time": 1.0, "commit": "c"}',
    '{"v": 1, "event": "judged", "trial": 1, "time": 1.0, "verdict": null}',
    '{"v": 1, "event": "judged", "trial": 1, "time": 1.0, "verdict": {"colour": "red"}}',
    '{"v": 1, "event": "asked", "trial": 7, "time": 1.0, "proposal": ["llm"]}',
)


@pytest.mark.parametrize("misfit", MISFITS)
def test_inconsistent_line_is_damage(misfit: str, night: tuple[Path, bytes, State], tmp_path: Path) -> None:
    _, data, whole = night
    path = tmp_path / "ledger.jsonl"
    path.write_bytes(data + misfit.encode() + b"\n")
    with pytest.raises(LedgerDamaged, match=rf"ledger.jsonl, line {data.count(10) + 1}: "):
        Ledger(path)
    with pytest.raises(LedgerDamaged, match=rf"ledger.jsonl, line {data.count(10) + 1}: "):
        fold(read(path), str(path))  # as a replay does
    assert path.read_bytes() == data + misfit.encode() + b"\n"
    state, problems = read_state(path)
    assert f"line {data.count(10) + 1}, is damaged" in problems[0]
    assert state.records == whole.records


def test_removed_line_leaves_placeholder_trial(night: tuple[Path, bytes, State], tmp_path: Path) -> None:
    _, data, whole = night
    _, number = spoilt(data, "asked", 3)
    lines = data.split(b"\n")
    path = tmp_path / "ledger.jsonl"
    path.write_bytes(b"\n".join(lines[: number - 1] + lines[number:]))
    state, _ = read_state(path)
    assert [r.number for r in state.records] == [r.number for r in whole.records]
    assert [r.number for r in state.records if r.proposal.subject == GONE] == [3]


def test_event_without_fields_is_damage(
    night: tuple[Path, bytes, State], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, data, _ = night
    lines = data.split(b"\n")
    at = next(k for k, line in enumerate(lines) if json.loads(line)["event"] == "judged")
    lines[at] = lines[at].replace(b'"verdict"', b'"vordict"')
    directory = RunDirectory(tmp_path / "runs", "night")
    shutil.copytree(folder / "runs" / "night", directory.path)
    directory.ledger.write_bytes(b"\n".join(lines))
    for command in ("status", "watch"):
        assert main([command, "--runs", str(tmp_path / "runs")]) == 0
        assert f"line {at + 1}, is damaged" in capsys.readouterr().err


def test_resume_rejects_damaged_ledger(tmp_path: Path) -> None:
    directory = start(make_bowl(tmp_path / "target"), tmp_path / "runs", trials=2)
    damaged, _ = spoilt(directory.ledger.read_bytes(), "judged", 1)
    directory.ledger.write_bytes(damaged)
    with pytest.raises(LedgerDamaged):
        resume(tmp_path / "runs", trials=3)
    assert directory.ledger.read_bytes() == damaged
