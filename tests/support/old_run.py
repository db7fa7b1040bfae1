"""A run directory written by version 0.1 before its modules moved, with the git objects of its target."""

from __future__ import annotations

import shutil
from pathlib import Path

from places import TESTS
from targets import git

from agent.rundir.directory import RunDirectory
from agent.trust import trust_run

FIXTURE = TESTS / "fixtures" / "run_of_0_1"
STATUS, LOG = FIXTURE / "status.json", FIXTURE / "log.json"  # what that version printed


def old_run(folder: Path) -> Path:
    """Copy the run ``night`` and a clone of its target below ``folder``; the folder of runs."""
    target, runs = folder / "target", folder / "runs"
    target.mkdir()
    git(target, "init", "-q", "-b", "main")
    git(target, "fetch", "-q", str(FIXTURE / "target.bundle"), "+refs/*:refs/*", "--update-head-ok")
    git(target, "reset", "-q", "--hard")
    shutil.copytree(FIXTURE / "night", runs / "night")
    settings = runs / "night" / "run.toml"
    settings.write_text(settings.read_text().replace("/somewhere", str(folder)))
    trust_run(runs / "night", RunDirectory(runs, "night").read_settings()["run"])  # it was started elsewhere
    return runs
