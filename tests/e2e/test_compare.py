"""`overnight compare` with a real vLLM server; its Centaur session gets only valid diffs.

The block and its bounds are those of the nanoGPT target. A formula replaces the training: the model's weights are
random. tests/e2e/test_sessions.py uses the real trainer.
"""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import budgets
import tomli_w
from conftest import ModelServer, Overnight
from places import ROOT
from sessions import check_whole, state_of
from targets import make_bowl

from agent.errors import ReplyRejected
from agent.proposers.search.answer_forms import read_diff
from agent.rundir.directory import RunDirectory
from agent.space.space import SearchSpace

NANOGPT = ROOT / "nanogpt_target"
REPLY = re.compile(r"^# Reply\n\n<!--.*?-->\n\n(.*?)(?=^# Prompt\n|\Z)", re.MULTILINE | re.DOTALL)
BEYOND_A_GRAMMAR = re.compile("does not hold")  # a constraint between two parameters
WARM_UP, REPLIES = 10, 8  # CMA-ES proposes the first ten trials of paper mode
TRIALS = WARM_UP + REPLIES
FORMULA = (
    '\nimport math\n\nprint(f"val_bpb: {3 + 0.05 * math.log10(MATRIX_LR / 0.1) ** 2 + 0.01 * WEIGHT_DECAY:.6f}")\n'
)


def formula_target(folder: Path) -> Path:
    """A git repository with the nanoGPT target's block, and a value computed from it."""
    space = SearchSpace.from_toml(NANOGPT / "target.toml")
    table = tomllib.loads((NANOGPT / "target.toml").read_text())
    kept = {name: table[name] for name in ("search", "hyperparameters") if name in table}
    head = {
        "editable": ["train.py"],
        "train": ["python", "train.py"],
        "score": "stdout",
        "pattern": r"^val_bpb:\s*(\S+)",
    }
    text = tomli_w.dumps({"target": head, "budget": {"seconds": 20}, "limits": {"memory_gb": 1}, **kept})
    return make_bowl(folder, train=space.block + FORMULA, toml=text)


def test_comparison_gets_only_valid_diffs(vllm_server: ModelServer, overnight: Overnight, tmp_path: Path) -> None:
    target, runs = formula_target(tmp_path / "target"), tmp_path / "runs"
    words = ("--target", target, "--runs", runs, "--tag", "cmp", "--methods", "cma-es,tpe,random,centaur")
    model = ("--llm-base-url", vllm_server.base_url, "--llm-model", vllm_server.model, "--centaur-share", "1")
    short = ("--seeds", "1", "--trials", str(TRIALS), "--threads", "1", "--device", "cpu", "--sandbox", "bwrap")
    done = overnight("compare", *words, *model, *short, "--json", seconds=budgets.SESSION_SECONDS)
    found = json.loads(done.stdout)
    assert found["complete"]
    sources = {row["method"]: row["sources"] for row in found["methods"]}
    assert sources == {
        "cma-es": {"cma": TRIALS}, "tpe": {"tpe": TRIALS}, "random": {"random": TRIALS},
        "centaur": {"cma": WARM_UP, "llm": REPLIES},
    }  # fmt: skip
    for cell in found["cells"]:
        check_whole(RunDirectory(runs, cell["tag"]), target, TRIALS)
    again = overnight("compare", "--tag", "cmp", "--runs", runs, "--json")
    assert json.loads(again.stdout) == found

    directory = RunDirectory(runs, "cmp-centaur-s0")
    space = SearchSpace.from_toml(target / "target.toml")
    replies = 0
    for record in state_of(directory).records[WARM_UP:]:
        talk = (directory.trial(record.number) / "conversation.md").read_text()
        block = talk.split("```python\n")[1].split("\n```")[0] + "\n"
        for reply in REPLY.findall(talk):
            check_reply(space, block, reply)
            replies += 1
        if record.proposal.params is not None:
            assert space.valid(record.proposal.params) == []
            assert record.candidate is not None or record.status == "no_effect"
    assert replies >= REPLIES


def check_reply(space: SearchSpace, block: str, reply: str) -> None:
    """Check that the reply is a valid diff of the block, except for what a grammar cannot enforce."""
    try:
        params, _ = read_diff(space, block, reply)
    except ReplyRejected as error:
        if not BEYOND_A_GRAMMAR.search(str(error)):
            raise
    else:
        assert set(params) == set(space.names)
