"""A session that is killed at random moments; benchmarks/kills.py with more kills is the soak."""

from __future__ import annotations

import pytest

from benchmarks.kills import Found, soak

KILLS = 10


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Found:
    return soak(tmp_path_factory.mktemp("kills"), KILLS, seed=3)


def test_a_session_killed_at_random_is_as_one_that_nobody_disturbed(found: Found) -> None:
    assert sum(found.kills.values()) == KILLS
    assert found.trials == KILLS
    assert found.kept, "no edit was kept: none could be lost"


def test_killed_sessions_leave_no_folder(found: Found) -> None:
    assert not [what for what in found.left if not what.startswith("process ")]


def test_killed_sessions_leave_no_process(found: Found) -> None:
    assert not [what for what in found.left if what.startswith("process ")]
