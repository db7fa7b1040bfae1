"""One run on a node of a Ray cluster; tests/e2e/test_ray.py has whole clusters."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from targets import make_bowl

from agent import __version__
from agent.errors import EnvironmentProblem
from agent.repo.repo import Repo
from agent.settings import Settings
from agent.target import load_target
from agent.trial.experiment import Experiment
from agent.trial.order import Order
from agent.workers.ray_node import Site, experiment_at
from sandbox import make_sandbox
from sandbox.types import Guarantee


@pytest.fixture
def site(tmp_path: Path) -> Site:
    target, _ = load_target(make_bowl(tmp_path / "target"))
    none: frozenset[Guarantee] = frozenset()
    settings = Settings(threads=1, cache=str(tmp_path))
    return Site(__version__, settings, target, "process", none, "cpu", str(tmp_path), ("", ""))


def make(site: Site) -> Experiment:
    repo = Repo(site.target.folder)
    return experiment_at(site, repo.tree(repo.head()), dict, lambda: False)


def test_node_runs_without_repository(site: Site, tmp_path: Path) -> None:
    experiment = make(site)
    shutil.rmtree(site.target.folder)
    measured = experiment.measure(Order(1, "any", "screen", 3, "files"), tmp_path / "files", lambda *_: None)
    assert measured.status == "ok"
    assert measured.value is not None
    assert "val_bpb" in (tmp_path / "files" / "train.log").read_text()


def test_node_refuses_another_version(site: Site) -> None:
    with pytest.raises(EnvironmentProblem, match=__version__):
        make(replace(site, version="0.0"))


def test_node_refuses_sandbox_with_fewer_guarantees(site: Site) -> None:
    promised = frozenset(Guarantee) - make_sandbox("process").guarantees
    with pytest.raises(EnvironmentProblem, match="cannot open a connection"):
        make(replace(site, promised=promised))
