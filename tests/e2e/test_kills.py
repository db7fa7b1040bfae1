"""A session killed at random moments. benchmarks/kills.py repeats this with more kills."""

from __future__ import annotations

import pytest

from benchmarks.kills import Found, soak

KILLS = 10


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Found:
    return soak(tmp_path_factory.mktemp("kills"), KILLS, seed=3)


def test_killed_session_equals_undisturbed_session(found: Found) -> None:
    assert sum(found.kills.values()) == KILLS
    assert found.trials == KILLS
    assert found.kept, "no edit was kept, so none could be lost"


def test_killed_sessions_leave_no_folder(found: Found) -> None:
    assert not [what for what in found.left if not what.startswith("process ")]


def test_killed_sessions_leave_no_process(found: Found) -> None:
    assert not [what for what in found.left if what.startswith("process ")]
