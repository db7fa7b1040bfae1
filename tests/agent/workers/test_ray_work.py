"""What a node of a cluster makes of a run that is sent to it; whole clusters are in tests/e2e/test_ray.py."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from targets import make_bowl

from agent import __version__
from agent.errors import EnvironmentProblem
from agent.repo.repo import Repo
from agent.target import load_target
from agent.workers.ray_node import Site, experiment_at
from sandbox import make_sandbox
from sandbox.types import Guarantee


@pytest.fixture
def site(tmp_path: Path) -> Site:
    target, _ = load_target(make_bowl(tmp_path / "target"))
    none: frozenset[Guarantee] = frozenset()
    return Site(__version__, target, "process", "", none, "cpu", 1, str(tmp_path), tmp_path, ("", ""))


def make(site: Site):
    repo = Repo(site.target.folder)
    return experiment_at(site, repo.tree(repo.head()), dict, lambda: False)


def test_a_run_needs_no_repository(site, tmp_path):
    experiment = make(site)
    shutil.rmtree(site.target.folder)
    measured = experiment.measure("any", "screen", 3, tmp_path / "files", "files", 0, lambda *_: None)
    assert measured.status == "ok"
    assert measured.value is not None
    assert "val_bpb" in (tmp_path / "files" / "train.log").read_text()


def test_another_version_is_refused(site):
    with pytest.raises(EnvironmentProblem, match=rf"has Overnight {__version__}, the session 0\.0\. Install the same"):
        make(replace(site, version="0.0"))


def test_a_sandbox_that_promises_less_is_refused(site):
    promised = frozenset(Guarantee) - make_sandbox("process").guarantees
    with pytest.raises(EnvironmentProblem, match=r"does not promise here: .*cannot open a connection"):
        make(replace(site, promised=promised))
