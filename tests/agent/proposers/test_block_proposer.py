"""``BlockProposer``: prompts in the user's terms, and records of failed models."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from places import ROOT
from scripted import ScriptedModel
from search_models import Helper

from agent.ledger.events import Asked, Candidate, Judged, Measured, Observed, decode, encode
from agent.proposers import make_proposer
from agent.proposers.block import BlockProposer
from agent.proposers.hand_over import search_from
from agent.proposers.protocol import Context
from agent.proposers.search.adviser import repeated
from agent.proposers.search.base import Terms
from agent.proposers.search.cma import CmaEs
from agent.space.space import SearchSpace
from agent.types import Measurement, Record, Verdict

TARGET = ROOT / "nanogpt_target"
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


def prompts_of(name, goal, tmp_path, **changes):
    """The prompts of a method after 14 trials with rising values."""
    llm = Helper(SPACE)
    options = {"share": 1.0, "screen": False} if name == "centaur" else {}
    one = BlockProposer(name, make_proposer(name, SPACE, llm=llm, **options), SPACE, goal)
    there = dataclasses.replace(context(tmp_path), goal=goal, metric="accuracy", **changes)
    for k in range(14):
        proposal = one.ask(there)
        run = Measurement("c", "screen", 1, "cpu", "ok", 80.0 + k)
        verdict = Verdict("revert", 80.0 + k, None, None, None, 1, 1, 0, "")
        one.tell(Record(k + 1, proposal, "c", (run,), verdict))
    one.ask(there)
    return llm.prompts


@pytest.mark.parametrize("name", ["hparams", "llambo", "llambo-optuna", "centaur"])
def test_prompt_states_metric_goal_and_notes(name, tmp_path):
    prompts = prompts_of(name, "maximize", tmp_path, notes="Leave DEPTH alone, please.")
    first = [prompt for prompt in prompts if "# Bounds" in prompt]
    assert first
    assert all("Leave DEPTH alone, please." in prompt for prompt in first)
    if name != "llambo-optuna":  # shows classes instead of values
        assert "accuracy, higher is better" in first[-1]
        assert "| 93.00000 |" in first[-1]
        assert "-9" not in first[-1].split("# State of CMA-ES")[0]
        assert "lower is better" not in first[-1]


def test_llambo_maximises_when_higher_is_better():
    method = make_proposer("llambo", SPACE, llm=Helper(SPACE))
    method.terms = Terms("accuracy", "maximize")
    method.tell(SPACE.defaults, -80.0)
    assert "accuracy of 80" in method.target()
    index, said = method.pick(np.array([[70.0, 95.0, 80.0], [71.0, 94.0, 81.0]]))
    assert index == 1
    assert "94.5" in said


def test_repeat_is_rejected_in_user_sign():
    method = make_proposer("hparams", SPACE, llm=Helper(SPACE))
    method.terms = Terms("accuracy", "maximize")
    params = SPACE.defaults | {"DEPTH": 9}
    method.tell(params, -81.5)
    assert "gave 81.50000" in repeated(method, params)


def test_model_without_point_is_recorded(tmp_path):
    one = proposer("no", "no")
    proposal = one.ask(context(tmp_path))
    assert (proposal.source, proposal.ending, proposal.params, proposal.diff) == ("llm", "model_failed", None, "")
    assert "no usable configuration" in proposal.reason
    assert proposal.transcript == "trials/0001"
    assert "# Prompt" in (tmp_path / "trials" / "0001" / "conversation.md").read_text()
    again = proposer()
    again.replay([Asked(trial=1, proposal=proposal)])
    assert again.method.asks == one.method.asks == 1


def test_resume_reads_the_forecasts_of_the_model(tmp_path):
    lived, resumed = (
        BlockProposer("centaur", make_proposer("centaur", SPACE, llm=Helper(SPACE)), SPACE, "minimize")
        for _ in range(2)
    )
    events = []
    for k in range(1, 25):
        proposal = lived.ask(dataclasses.replace(context(tmp_path), trial=k))
        run = Measurement("c", "screen", k, "cpu", "ok", 1.0 - 0.01 * (proposal.source == "llm"))
        verdict = Verdict("revert", run.value, None, None, None, 1, 1, 0, "")
        at = {"time": 1.0, "trial": k}
        events += [Asked(**at, proposal=proposal), Candidate(**at, commit="c", ref="r")]
        events += [Measured(**at, measurement=run), Judged(**at, verdict=verdict), Observed(**at)]
        lived.tell(Record(k, proposal, "c", (run,), verdict))
    assert any("forecast" in e.proposal.search for e in events if isinstance(e, Asked))
    resumed.replay(decode(encode(event)) for event in events)
    assert resumed.method.figures() == lived.method.figures()
    assert resumed.method.suggest() == lived.method.suggest()


@pytest.mark.parametrize(
    ("metrics", "host", "expected"),
    [({"peak_vram_gb": 71.5}, 3.0, 71.5), ({}, 3.0, 3.0), ({}, None, None)],
    ids=["gpu", "cpu", "unknown"],
)
def test_search_receives_memory_of_the_device(metrics, host, expected, tmp_path):
    one = BlockProposer("cma-es", make_proposer("cma-es", SPACE), SPACE, "minimize")
    proposal = one.ask(context(tmp_path))
    run = Measurement("c", "screen", 1, "cuda", "ok", 1.0, metrics=metrics, peak_memory_gb=host)
    smaller = dataclasses.replace(run, metrics={}, peak_memory_gb=None)
    one.tell(Record(1, proposal, "c", (run, smaller), Verdict("revert", 1.0, None, None, None, 2, 1, 0, "")))
    assert one.method.observations[-1].memory_gb == expected


def test_search_on_plateau_learns_peak_memory(tmp_path: Path) -> None:
    there = context(tmp_path)
    proposal = search_from(there, TARGET / "target.toml", "minimize", "code").ask(there)
    run = Measurement("c", "screen", 1, "cpu", "ok", 1.0, peak_memory_gb=2.5)
    history = (Record(1, proposal, runs=(run,)),)
    after = search_from(
        dataclasses.replace(there, history=history, plateau=1), TARGET / "target.toml", "minimize", "code"
    )
    assert isinstance(after.method, CmaEs)
    assert [observation.memory_gb for observation in after.method.observations] == [2.5]
