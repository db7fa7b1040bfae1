"""Look-alikes of existing projects in Docker, from `overnight init --from` to the report."""

from __future__ import annotations

import json
from pathlib import Path

import budgets
import foreign
import pytest
from conftest import Overnight
from openai_server import OpenAIServer
from sessions import check_whole, state_of
from targets import git

from agent.rundir.directory import RunDirectory

IN_THE_IMAGE = [
    look_alike for look_alike in foreign.ALL if look_alike.name != "classifier"
]  # scikit-learn is not in the image


@pytest.mark.parametrize("look_alike", IN_THE_IMAGE, ids=lambda look_alike: look_alike.name)
def test_project_runs_in_docker(
    look_alike: foreign.LookAlike,
    docker_image: str,
    overnight: Overnight,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    project = foreign.user_project(look_alike, tmp_path / "project")
    target = project if look_alike.in_place else tmp_path / "target"
    runs = tmp_path / "runs"
    overnight("init", target, "--from", project)
    if look_alike.in_place:
        git(target, "add", "target.toml", "notes.md")
        git(target, "commit", "-q", "-m", "Add target.toml")
    common = ("--target", target, "--runs", runs, "--sandbox", "docker", "--image", docker_image, "--device", "cpu",
              "--threads", "1", "--policy", "greedy", "--calibrate", "1")  # fmt: skip
    overnight("run", *common, "--tag", "numbers", "--proposer", "cma-es", "--trials", "2",
              seconds=budgets.SESSION_SECONDS)  # fmt: skip
    with OpenAIServer([foreign.reply(look_alike, (target / look_alike.script).read_text())]) as server:
        overnight("run", *common, "--tag", "code", "--proposer", "code", "--trials", "1",
                  "--llm-base-url", server.base_url, seconds=budgets.SESSION_SECONDS)  # fmt: skip
    for tag, trials in (("numbers", 2), ("code", 1)):
        directory = RunDirectory(runs, tag)
        check_whole(directory, target, trials)
        measured = [run for found in state_of(directory).runs.values() for run in found]
        assert {run.status for run in measured} == {"ok"}, measured
        assert all(run.self_reported for run in measured)
    (attempt,) = json.loads(overnight("log", "code", "--json", "--runs", runs).stdout)
    assert attempt["decision"] == "keep"
    assert attempt["self_reported"]
    assert "self-reported" in overnight("status", "--runs", runs).stdout
