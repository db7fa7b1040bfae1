"""``--on-llm-loop``: another method stands in for a model whose answers are a loop, and is labelled."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from openai_server import Answer, OpenAIServer
from sessions import resume, start, state_of
from targets import make_bowl
from test_ideas_proposer import bowl_with_ideas

from agent.cli import main
from agent.errors import UsageError
from agent.ledger.state import State
from agent.review.report.report import write_report
from agent.rundir.directory import RunDirectory
from agent.session.stopping import Stuck

BABBLE = "Subject: More layers\n" + "The model should have more layers and fewer heads. " * 60


def night(target: Path, runs: Path, trials: int, **settings: object) -> tuple[RunDirectory, State]:
    usual = {"proposer": "code", "policy": "greedy", "calibrate": 1, "llm_sleep": "off"}
    with OpenAIServer(at_end=Answer(BABBLE)) as server:
        directory = start(target, runs, trials=trials, llm_base_url=server.base_url, **{**usual, **settings})
    return directory, state_of(directory)


def test_idea_of_the_bank_stands_in_for_the_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target, runs = bowl_with_ideas(tmp_path / "target"), tmp_path / "runs"
    directory, state = night(target, runs, 3, on_llm_loop="ideas")
    assert [record.proposal.source for record in state.records] == ["ideas", "ideas", "llm"]
    first, _, last = (record.proposal for record in state.records)
    assert first.ending is None
    assert "repeats itself" in first.loop
    assert [answer.problem for answer in first.answers] == ["loop", "loop"]
    assert first.ideas is not None
    assert first.ideas.taken in ("rate", "depth")
    assert last.ending == "patch_rejected"
    assert "idea bank" in last.reason
    assert (directory.trial(1) / "loop-reply.md").is_file()
    assert main(["status", "night", "--runs", str(runs), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["loops"] == [1, 2, 3]
    assert (found["ideas"]["tried"], found["ideas"]["kept"]) == (2, 1)
    write_report(directory.path)
    assert "in place of the model" in directory.report.read_text()
    assert main(["show", "night", "1", "--runs", str(runs)]) == 0
    assert "repeats itself" in capsys.readouterr().out


def test_point_of_cma_es_stands_in_for_the_model(tmp_path: Path) -> None:
    _, state = night(make_bowl(tmp_path / "target"), tmp_path / "runs", 2, on_llm_loop="cma")
    assert [record.proposal.source for record in state.records] == ["cma", "cma"]
    assert all(record.proposal.loop and record.runs for record in state.records)
    resume(tmp_path / "runs", proposer="cma-es", trials=3)  # the search method reads the ledger
    assert len(state_of(RunDirectory(tmp_path / "runs", "night")).finished) == 3


def test_loop_ends_the_trial_by_default(tmp_path: Path) -> None:
    with pytest.raises(Stuck, match="repeats itself"):
        night(make_bowl(tmp_path / "target"), tmp_path / "runs", 9, breaker=2)
    state = state_of(RunDirectory(tmp_path / "runs", "night"))
    assert [record.proposal.ending for record in state.records] == ["patch_rejected"] * 2
    assert "repeats itself" in state.records[0].proposal.loop


def test_cma_without_a_block_is_refused_at_the_start(tmp_path: Path) -> None:
    toml = '[target]\nname = "x"\neditable = ["train.py"]\ntrain = ["python", "train.py"]\nscore = "stdout"\n'
    toml += "metric = \"loss\"\npattern = '^loss: (.*)'\n[budget]\nsteps = 1\n"
    with pytest.raises(UsageError):
        night(make_bowl(tmp_path / "target", toml=toml), tmp_path / "runs", 1, on_llm_loop="cma")
