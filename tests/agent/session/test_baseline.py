"""What calibration refuses and warns about."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from sessions import start, state_of
from targets import TRAIN, git, make_bowl

from agent.errors import UsageError
from agent.ledger.events import SessionStarted
from agent.ledger.state import State
from agent.review.data.night import night_of
from agent.review.data.status import status_json
from agent.review.report.sections import how_sure
from agent.review.terminal.status import noise_words
from agent.session.baseline import check_budget, check_training
from agent.target import Target, load_target
from agent.text import FIXED_SEED
from agent.types import Measurement, Status


@pytest.fixture
def target(tmp_path: Path) -> Target:
    return load_target(make_bowl(tmp_path / "target"))[0]


def run(steps: float = 0.0, status: Status = "ok", seconds: float = 20.0) -> Measurement:
    metrics = {"steps": steps} if steps else {}
    return Measurement("base", "calibrate", 1, "cpu", status, 1.0, metrics, {"training": seconds})


def of(*runs: Measurement) -> State:
    return State(session=SessionStarted(baseline="base"), runs={"base": runs})


def test_run_of_one_step_is_refused_with_budget(target: Target) -> None:
    with pytest.raises(UsageError, match=r"1 step in 20 s .*--budget 500s.*preset"):
        check_training(of(run(1.0)), target)
    with pytest.raises(UsageError, match=r"19 steps .*--budget 27s"):
        check_training(of(run(19.0)), target)


def test_enough_or_unknown_steps_are_accepted(target: Target) -> None:
    check_training(of(), target)
    check_training(of(run()), target)
    check_training(of(run(20.0)), target)
    counted = dataclasses.replace(target, budget=dataclasses.replace(target.budget, kind="steps", amount=3))
    check_training(of(run(3.0)), counted)


def test_half_of_runs_over_budget_are_refused(target: Target) -> None:
    over = run(status="over_budget", seconds=30.0)
    with pytest.raises(UsageError, match=r"2 of 4 runs .*30 s.*--budget 38s"):
        check_budget([run(), over, run(), over], target)
    with pytest.raises(UsageError, match="1 of 1 run "):
        check_budget([over], target)
    check_budget([run(), over, run()], target)


def test_fixed_seed_is_stated_wherever_noise_is(tmp_path: Path) -> None:
    folder = make_bowl(tmp_path / "target", TRAIN.replace('int(os.environ["OVERNIGHT_SEED"])', "42"))
    directory = start(folder, tmp_path / "runs", trials=6, policy="confirm")
    state = state_of(directory)
    night = night_of(state, {})
    assert state.kept
    assert "seed_arg" in directory.log.read_text()
    assert FIXED_SEED in noise_words(night.summary)
    assert FIXED_SEED in how_sure(night.summary)
    assert status_json(night)["gain_se"] is None
    message = git(folder, "log", "-1", "--format=%B", "autoresearch/night")
    assert f"Noise: {FIXED_SEED}" in message
    assert "Gain-Se" not in message
