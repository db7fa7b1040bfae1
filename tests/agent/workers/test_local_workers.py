"""Runs in threads of this machine."""

from __future__ import annotations

from pathlib import Path

import budgets
import pytest
from targets import make_bowl

from agent.errors import EnvironmentProblem
from agent.repo.repo import Repo
from agent.target import load_target
from agent.trial.experiment import Experiment
from agent.trial.order import Order
from agent.workers.local import LocalWorkers
from sandbox import make_sandbox
from sandbox.types import Device


def test_error_of_the_system_is_an_environment_problem(tmp_path: Path) -> None:
    """So a replay records the run as lost, too."""
    folder = make_bowl(tmp_path / "target")
    repo, target = Repo(folder), load_target(folder)[0]
    experiment = Experiment(repo.tree, target, make_sandbox("process"), Device("cpu", threads=1), "test")
    workers = LocalWorkers(lambda _stop: [experiment], lambda: False)
    (tmp_path / "file").touch()
    run = workers.start(Order(0, repo.head(), "replay", 1, ""), tmp_path / "file" / "run", lambda _phase, _info: None)
    with pytest.raises(EnvironmentProblem, match="Not a directory"):
        run.result(timeout=budgets.TRAINING_SECONDS)
    workers.close()
