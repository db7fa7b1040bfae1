"""Overnight as a tool of its own: a wheel in an environment that is not the project's."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest
from places import ROOT
from sessions import state_of
from targets import git

from agent import __version__
from agent.rundir.directory import RunDirectory

PACKAGES = ("agent", "sandbox", "nanogpt_target", "prompts")
TRAIN = """
import os, random
import {imports}
LR = 0.1
assert all(module.OWNER == "user" for module in ({imports},))
print("val_loss:", LR + random.Random(int(os.environ["OVERNIGHT_SEED"])).random())
"""


@pytest.fixture(scope="module")
def tool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command of an installed wheel; its dependencies are those of the test environment."""
    folder = tmp_path_factory.mktemp("tool")
    for name in PACKAGES:
        shutil.copytree(ROOT / name, folder / "tree" / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, folder / "tree")
    build = [sys.executable, "-c", "from setuptools import build_meta; print(build_meta.build_wheel('..'))"]
    done = subprocess.run(build, cwd=folder / "tree", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    wheel = folder / done.stdout.split()[-1]
    venv.create(folder / "env", with_pip=False, symlinks=True)
    python = folder / "env" / "bin" / "python"
    install = [sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-deps", "--no-index", wheel]
    done = subprocess.run(install, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (site,) = (folder / "env").glob("lib/python3*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "env" / "bin" / "overnight"


def overnight(tool: Path, cwd: Path, *words: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return subprocess.run([tool, *words], cwd=cwd, capture_output=True, text=True, env=clean)


def test_version_and_help_of_installed_wheel(tool: Path, tmp_path: Path) -> None:
    done = overnight(tool, tmp_path, "--version")
    assert (done.returncode, done.stdout.split()[-1]) == (0, __version__), done.stderr
    done = overnight(tool, tmp_path, "ideas")
    assert done.returncode == 0, done.stderr
    assert "value-embeddings" in done.stdout, "package data is in the wheel"


@pytest.mark.parametrize("python", ["own", "other"])
def test_project_packages_with_names_of_overnight_are_used(tool: Path, tmp_path: Path, python: str) -> None:
    project = tmp_path / "project"
    for name in PACKAGES:
        (project / name).mkdir(parents=True)
        (project / name / "__init__.py").write_text('OWNER = "user"\n')
    (project / "train.py").write_text(TRAIN.format(imports=", ".join(PACKAGES)))
    git(project, "init", "-q", "-b", "main")
    git(project, "add", "-A")
    git(project, "commit", "-q", "-m", "Begin")
    done = overnight(tool, project, "init", ".", "--from", ".")
    assert done.returncode == 0, done.stderr
    git(project, "add", "target.toml", "notes.md")
    git(project, "commit", "-q", "-m", "Add target.toml")
    runs = str(tmp_path / "runs")
    words = ["run", "--tag", "first", "--runs", runs, "--proposer", "cma-es", "--policy", "greedy", "--trials", "1"]
    if python == "other":
        venv.create(tmp_path / "own", with_pip=False, symlinks=True)
        words += ["--python", str(tmp_path / "own" / "bin" / "python")]
    done = overnight(tool, project, *words, "--sandbox", "process")
    assert done.returncode == 0, done.stderr
    runs_of = [run for found in state_of(RunDirectory(tmp_path / "runs", "first")).runs.values() for run in found]
    assert [run.status for run in runs_of] == ["ok", "ok"]
