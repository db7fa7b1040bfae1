"""A search space with four points: search ends when the three new ones are proposed."""

from __future__ import annotations

from pathlib import Path

import pytest
from search_models import Helper
from sessions import start, state_of
from targets import TOML, TRAIN, make_bowl

from agent.errors import SearchExhausted
from agent.proposers import METHODS, make_proposer
from agent.space.space import SearchSpace
from agent.types import Param

FOUR = SearchSpace([Param("DEPTH", "int", 1, 1, 2), Param("TIED", "categorical", True, choices=(False, True))])


@pytest.mark.parametrize("name", METHODS)
def test_ask_raises_when_all_points_are_seen(name: str) -> None:
    if name == "smac":
        pytest.importorskip("smac")
    method = make_proposer(name, FOUR, llm=Helper(FOUR) if METHODS[name][2] else None)
    asked = []
    for value in range(3):
        params = method.ask()
        asked.append(FOUR.key(params))
        method.tell(params, 1.0 + value)
    assert {*asked, FOUR.key(FOUR.defaults)} == {FOUR.key(params) for params in FOUR.every()}
    with pytest.raises(SearchExhausted):
        method.ask()


@pytest.mark.parametrize("workers", [1, 2])
def test_session_ends_when_space_is_used_up(tmp_path: Path, workers: int) -> None:
    toml = TOML.replace("low = 0.0001\nhigh = 1.0\nlog = true", "choices = [0.01, 0.1]")
    toml = toml.replace("low = 1\nhigh = 12", "low = 4\nhigh = 5").replace("seconds = 20", "steps = 20")
    target = make_bowl(tmp_path / "target", TRAIN, toml)
    directory = start(target, tmp_path / "runs", trials=12, policy="greedy", calibrate=1, workers=workers)
    state = state_of(directory)
    assert len(state.finished) == 3
    assert state.ended is not None
    assert "4 configurations" in state.ended
