"""Sessions under ``stacked``: runs carry several edits, and only trees that ran are published."""

from __future__ import annotations

from pathlib import Path

import pytest
from ladder import GAINS, SETTINGS, SIGMA, WORTH, check_stacked, make_ladder
from sessions import refs_of, start, state_of
from targets import git

from agent.rundir.directory import RunDirectory


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunDirectory, Path]:
    root = tmp_path_factory.mktemp("stacked")
    target = make_ladder(root / "target")
    return start(target, root / "runs", **SETTINGS), target


def test_night_finds_the_gains_and_publishes_them(night: tuple[RunDirectory, Path]) -> None:
    directory, target = night
    state = check_stacked(directory, target, len(WORTH))
    assert [record.number for record in state.kept] == GAINS
    assert state.ended == f"all {len(WORTH)} trials done"
    text = git(target, "show", f"{state.head}:train.py")
    assert [f"S{k} = 1" in text for k in range(len(WORTH))] == [worth > 0 for worth in WORTH]
    for record in state.kept:
        assert record.verdict is not None
        error = abs((record.verdict.gain or 0.0) - WORTH[record.number - 1] * SIGMA)
        assert error < 4 * (record.verdict.gain_se or 0.0)


def test_runs_carry_several_edits_and_are_explained(night: tuple[RunDirectory, Path]) -> None:
    state = state_of(night[0])
    assert max(len(stack.edits) for stack in state.stacks) >= 3
    weight = state.weights[GAINS[0]]
    record = state.records[GAINS[0] - 1]
    assert weight.runs_in == len(record.stacks)
    assert weight.mean_in == pytest.approx(sum(run.value or 0.0 for run in record.stacks) / len(record.stacks))
    assert weight.mean_out is not None


def test_working_head_holds_likely_edits(night: tuple[RunDirectory, Path]) -> None:
    state, target = state_of(night[0]), night[1]
    assert "work" in refs_of(target)
    parents = [git(target, "show", f"{record.proposal.parent}:train.py") for record in state.records]
    assert any("= 1" in text for text in parents), "no edit was proposed on top of a likely one"
