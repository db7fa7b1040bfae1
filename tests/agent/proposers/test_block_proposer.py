"""The adapter between a search method and a session: a model's failure is a record of its own."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from agent.context import Context
from agent.proposers import make_proposer
from agent.proposers.block import BlockProposer
from agent.scripted import ScriptedModel
from agent.space import SearchSpace
from agent.types import to_json

TARGET = Path(__file__).resolve().parents[3] / "nanogpt_target"
SOURCE = (TARGET / "train.py").read_text(encoding="utf-8")
SPACE = SearchSpace.from_toml(TARGET / "target.toml")


def context(directory: Path) -> Context:
    given = {
        "parent": "0" * 40,
        "source": SOURCE,
        "path": "train.py",
        "history": (),
        "incumbent_runs": (),
        "noise_sd": None,
        "trial": 1,
        "seed": 0,
        "plateau": 0,
        "goal": "minimize",
        "transcripts": directory / "trials" / "0001",
        "run_directory": directory,
    }
    names = [field.name for field in dataclasses.fields(Context) if field.default is dataclasses.MISSING]
    return Context(**{**dict.fromkeys(names, ""), **given})


def proposer(*lines: str) -> BlockProposer:
    method = make_proposer("hparams", SPACE, llm=ScriptedModel(lines))
    return BlockProposer("hparams", method, SPACE, "minimize")


def test_a_model_without_a_point_is_recorded_as_that(tmp_path):
    one = proposer("no", "no")
    proposal = one.ask(context(tmp_path))
    assert (proposal.source, proposal.ending, proposal.params, proposal.diff) == ("llm", "model_failed", None, "")
    assert "no usable configuration" in proposal.reason
    assert proposal.transcript == "trials/0001"
    assert "# Prompt" in (tmp_path / "trials" / "0001" / "conversation.md").read_text()
    again = proposer()
    again.replay([{"event": "asked", "time": 1.0, "trial": 1, "started": 1.0, "proposal": to_json(proposal)}])
    assert again.method.asks == one.method.asks == 1
