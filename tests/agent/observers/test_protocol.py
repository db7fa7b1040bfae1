"""Observers in a group: order, isolation of failures, hostile progress messages."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from agent.observers.activity import LOSSES, Activity, advance
from agent.observers.protocol import Observer, Observers
from agent.observers.session_log import SessionLog


class Recorder(Observer):
    """Records its calls and raises in the call named ``fails``."""

    def __init__(self, fails: str = "") -> None:
        self.fails = fails
        self.calls: list[str] = []

    def _call(self, name: str) -> None:
        self.calls.append(name)
        if name == self.fails:
            raise OSError("gone")

    def __enter__(self) -> None:
        self._call("enter")

    def __exit__(self, *_: object) -> None:
        self._call("exit")

    def progress(self, phase: str, info: Mapping[str, Any]) -> None:
        self._call("progress")


@pytest.mark.parametrize("fails", ["enter", "progress", "exit"])
def test_failing_observer_is_switched_off_and_logged(tmp_path: Path, fails: str) -> None:
    broken, fine = Recorder(fails), Recorder()
    with Observers(SessionLog(tmp_path / "session.log"), broken, fine) as observers:
        observers.progress("training", {})
        observers.progress("training", {})
    assert fine.calls == ["enter", "progress", "progress", "exit"]
    expected = {"enter": ["enter"], "progress": ["enter", "progress", "exit"], "exit": fine.calls}
    assert broken.calls == expected[fails]
    (line,) = (tmp_path / "session.log").read_text().splitlines()
    assert "WARNING" in line
    assert "Recorder" in line
    assert "gone" in line


def test_error_of_session_passes_through(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING), pytest.raises(ValueError), Observers(Recorder()):
        raise ValueError
    assert not caplog.records


def test_hostile_progress_values_are_ignored() -> None:
    activity = Activity("training", trial=3, loss=2.0, step=5)
    hostile = {
        "trial": object(),
        "loss": float("nan"),
        "step": 1e400,
        "progress": "x",
        "running": True,
        "seconds": None,
    }
    advance(activity, "training", hostile)
    assert (activity.trial, activity.loss, activity.step, activity.progress, activity.running) == (3, 2.0, 5, None, 1)


def test_each_loss_has_its_share_of_the_budget() -> None:
    activity = Activity("training")
    for step in range(1, 1001):
        advance(activity, "training", {"loss": 4.0 - step / 1000, "progress": step / 1000, "step": step})
    assert len(activity.losses) == len(activity.shares) <= LOSSES
    assert all(abs(4.0 - loss - share) < 1e-9 for loss, share in zip(activity.losses, activity.shares, strict=True))
