"""Runs in flight: which checkpoints stay for the test split."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.ledger.events import SessionStarted
from agent.ledger.state import State
from agent.rundir.directory import RunDirectory
from agent.session.in_flight import prune_checkpoints, with_checkpoint
from agent.trial.order import Order
from agent.types import Measurement, Proposal, Record

OK = Measurement("base", "calibrate", 1, "cpu", "ok", 3.0)
FAILED = replace(OK, status="oom", value=None)


def runs_of(trial: int, *runs: Measurement) -> tuple[Measurement, ...]:
    return tuple(replace(run, trace=f"trials/{trial:04d}/run-{k}") for k, run in enumerate(runs, start=1))


def left_after(directory: RunDirectory, state: State, trial: int, running: tuple[Order, ...] = ()) -> list[str]:
    """The runs of a trial with a checkpoint, after ``prune_checkpoints``. Each of three runs had one."""
    for number in (1, 2, 3):
        folder = directory.trial(trial) / f"run-{number}"
        folder.mkdir(parents=True)
        (folder / "model.safetensors").write_bytes(b"weights")
    prune_checkpoints(directory, state, trial, running)
    return sorted(path.parent.name for path in directory.trial(trial).glob("run-*/model.safetensors"))


@pytest.mark.parametrize(
    ("runs", "kept"),
    [
        ((OK, OK, OK), ["run-3"]),
        ((OK, OK, FAILED), ["run-2"]),
        ((OK, FAILED, FAILED), ["run-1"]),
        ((FAILED, FAILED, FAILED), []),
    ],
)
def test_newest_checkpoint_with_value_is_kept(tmp_path: Path, runs: Any, kept: list[str]) -> None:
    directory = RunDirectory(tmp_path, "night")
    runs = runs_of(0, *runs)
    state = State(session=SessionStarted(baseline="base"), runs={"base": runs})
    assert left_after(directory, state, 0) == kept
    scored = with_checkpoint((*runs, replace(OK, role="test", trace="elsewhere")))
    assert ([Path(scored.trace).name] if scored else []) == kept


def test_checkpoint_of_candidate_survives_run_of_incumbent(tmp_path: Path) -> None:
    candidate = replace(OK, commit="c", role="screen")
    runs = runs_of(1, candidate, candidate, OK)
    record = Record(1, Proposal("code", "llm", "base", "d"), candidate="c", runs=runs[:2])
    state = State(records=(record,), runs={"c": runs[:2], "base": runs[2:]})
    assert left_after(RunDirectory(tmp_path, "night"), state, 1) == ["run-2"]


def test_checkpoint_of_running_run_is_kept(tmp_path: Path) -> None:
    state = State(session=SessionStarted(baseline="base"), runs={"base": runs_of(0, OK)})
    running = Order(0, "base", "calibrate", 2, "trials/0000/run-2", 0)
    assert left_after(RunDirectory(tmp_path, "night"), state, 0, (running,)) == ["run-1", "run-2"]


def test_finished_trials_keep_no_checkpoint(tmp_path: Path) -> None:
    state = State(session=SessionStarted(baseline="base"), runs={"base": runs_of(0, OK)}, observed=frozenset({0}))
    assert left_after(RunDirectory(tmp_path, "night"), state, 0) == []
