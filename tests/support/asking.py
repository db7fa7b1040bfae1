"""Asks of the code proposer with a scripted model, for its tests."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from scripted import Line, ScriptedModel

from agent.patch.apply import unified_diff
from agent.patch.normal_form import normal_form
from agent.proposers.code.proposer import CodeProposer
from agent.proposers.protocol import Context
from agent.types import Measurement, Proposal, Record, Status, Verdict

SOURCE = """import torch

DEPTH = 4
LEARNING_RATE = 0.02
WARMUP = 2**4


def main():
    torch.manual_seed(1)
    print(DEPTH, LEARNING_RATE, WARMUP)
"""


def reply(
    old: str, new: str, header: str = "Category: optimiser\nSubject: Raise the rate\nRationale: It is low."
) -> str:
    return f"{header}\n\n```diff\n{unified_diff(SOURCE, SOURCE.replace(old, new), 'train.py')}```\n"


FASTER = reply("0.02", "0.04")
SLOWER = reply("0.02", "0.01")
LOST = "Subject: x\n\n```diff\n--- a/train.py\n+++ b/train.py\n@@ @@\n-NOT THERE = 1\n+NOT THERE = 2\n```\n"


def run(status: Status = "ok", value: float | None = 3.0, **fields: Any) -> Measurement:
    return Measurement("c0ffee", "screen", 1, "cpu", status, value if status == "ok" else None, **fields)


def record(number: int, new: str = "LEARNING_RATE = 0.08", **fields: Any) -> Record:
    """A reverted attempt, with ``fields`` replaced."""
    text = SOURCE.replace("LEARNING_RATE = 0.02", new)
    proposal = Proposal(
        "code", "llm", "c0ffee", unified_diff(SOURCE, text, "train.py"), subject=f"Idea {number}", category="optimiser",
        rationale="Because.", form=normal_form(text),
    )  # fmt: skip
    verdict = Verdict("revert", 3.1, 3.0, -0.1, 0.05, 1, 2, 1, "worse")
    return Record(number, **({"proposal": proposal, "runs": (run(value=3.1),), "verdict": verdict} | fields))


def context(**fields: Any) -> Context:
    usual = Context(
        parent="c0ffee", source=SOURCE, path="train.py", history=(), incumbent_runs=(run(), run(value=3.02)),
        noise_sd=0.05, notes="Try the optimiser.", hardware="cpu, 2 threads", budget="5 s", trial=1, seed=0, plateau=0,
        metric="val_bpb", goal="minimize",
    )  # fmt: skip
    return dataclasses.replace(usual, **fields)


def ask(lines: Sequence[Line], given: Context | None = None, **options: Any) -> tuple[Proposal, ScriptedModel]:
    model = ScriptedModel(lines)
    return CodeProposer(model, **options).ask(given or context()), model


def said(model: ScriptedModel, request: int = 0) -> str:
    return model.requests[request].messages[-1]["content"]
