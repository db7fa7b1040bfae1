"""Forms of the edit in a reply, and replies that loop."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from asking import FASTER, LOST, SOURCE, ask, context, record, said
from places import ROOT, TESTS
from scripted import ScriptedModel

from agent.errors import PatchRejected
from agent.llm.chat import Reply
from agent.patch.apply import apply_reply
from agent.proposers.code.forms import best_form
from agent.proposers.code.loops import repeats_itself
from agent.proposers.code.proposer import CodeProposer
from agent.proposers.protocol import Context
from agent.types import Answer as Given
from agent.types import Proposal

# --- forms of the edit ----------------------------------------------------------------------------------------------

BLOCK = "Subject: x\n\n<<<<<<< SEARCH\nLEARNING_RATE = 0.02\n=======\nLEARNING_RATE = 0.04\n>>>>>>> REPLACE\n"


@pytest.mark.parametrize("edit", [BLOCK, f"Subject: x\n```python\n{SOURCE.replace('0.02', '0.04')}```\n"])
def test_block_or_whole_file_becomes_a_diff(edit: str) -> None:
    proposal, model = ask([edit])
    assert (proposal.text, proposal.subject) == (SOURCE.replace("0.02", "0.04"), "x")
    assert apply_reply(SOURCE, proposal.diff) == proposal.text
    assert proposal.answers[0].applied
    assert len(model.requests) == 1


def test_last_repair_asks_for_another_form() -> None:
    model = ScriptedModel([LOST, LOST.replace("NOT", "NEVER"), BLOCK], structured=["grammar"])
    proposal = CodeProposer(model, repairs=2).ask(context())
    assert proposal.ending is None
    assert [answer.form for answer in proposal.answers] == ["diff", "diff", "blocks"]
    assert "<<<<<<< SEARCH" not in said(model, 1)
    assert "<<<<<<< SEARCH" in said(model, 2)
    assert [request.grammar is not None for request in model.requests] == [True, True, False]


def test_last_repair_asks_for_the_form_that_worked() -> None:
    good = tuple(Given("diff", True, str(n)) for n in range(9))
    proposal = dataclasses.replace(record(1).proposal, answers=good, model="scripted")
    given = context(history=(record(1, proposal=proposal),))
    _, model = ask([LOST, LOST.replace("NOT", "NEVER"), FASTER], given, repairs=2)
    assert "<<<<<<< SEARCH" not in said(model, 2)


@pytest.mark.parametrize(
    ("outcomes", "fits", "form"),
    [
        ("", True, "blocks"),
        ("D", True, "diff"),
        ("dddDDDDD", True, "diff"),
        ("ddbF", True, "file"),
        ("ddbF", False, "blocks"),
        ("dddDDb", False, "diff"),
    ],
)
def test_best_form_is_the_one_that_applies(outcomes: str, fits: bool, form: str) -> None:
    names = {"d": "diff", "b": "blocks", "f": "file"}
    assert best_form([Given(names[c.lower()], c.isupper(), "") for c in outcomes], fits) == form


# --- loops ----------------------------------------------------------------------------------------------------------

BABBLE = "Subject: x\n" + "The model should have more layers and fewer heads. " * 60


def after(*proposals: Proposal) -> Context:
    return context(history=tuple(record(n, proposal=p, runs=()) for n, p in enumerate(proposals, start=1)), trial=9)


def test_babble_gets_other_sampling_once() -> None:
    proposal, model = ask([BABBLE, BABBLE + "!", FASTER])
    assert proposal.ending == "patch_rejected"
    assert "repeats itself" in proposal.loop
    assert proposal.loop in proposal.reason
    first, second = model.requests
    assert first.messages == second.messages
    assert first.frequency_penalty is None
    assert (second.frequency_penalty or 0) > 0
    assert (second.temperature or 0) > (first.temperature or 0)


def test_other_sampling_may_help() -> None:
    proposal, _ = ask([BABBLE, FASTER])
    assert (proposal.ending, proposal.loop) == (None, "")
    assert [answer.problem for answer in proposal.answers] == ["loop", ""]


def test_equal_replies_are_noticed_in_the_second_trial() -> None:
    first, _ = ask([LOST] * 2, repairs=1)
    assert first.loop == ""
    second, model = ask([LOST] * 9, after(first), repairs=1)
    assert "trial 1" in second.loop
    assert len(model.requests) == 2
    assert second.loop in second.reason.partition("\n")[0], "views of one line show the first"


def test_equal_reply_that_applies_is_used() -> None:
    first, _ = ask([LOST, FASTER], repairs=1)
    assert ask([FASTER], after(dataclasses.replace(first, form="", ending="patch_rejected")))[0].ending is None


def test_second_reply_at_the_token_limit_is_a_loop() -> None:
    def cut(n: int) -> Reply:
        return Reply(f"I think about idea {n}", finish_reason="length", tokens_out=500)

    first, model = ask([cut(1), cut(2)], repairs=1)
    assert (first.loop, len(model.requests)) == ("", 2)
    second, model = ask([cut(3), cut(4)], after(first), repairs=1)
    assert "token limit" in second.loop
    assert second.ending == "model_failed"
    assert model.requests[0].messages == model.requests[1].messages


def test_babble_after_a_loop_is_not_repaired() -> None:
    """A small model whose reply loops writes words at random, up to the token limit, once its sampling is other."""
    salad = Reply((TESTS / "fixtures" / "replies" / "word_salad.md").read_text(), finish_reason="length")
    loop = Reply((TESTS / "fixtures" / "replies" / "repeated_headers.md").read_text(), finish_reason="length")
    proposal, model = ask([loop, salad, FASTER], repairs=2)
    assert len(model.requests) == 2
    assert (proposal.ending, "token limit" in proposal.loop) == ("model_failed", True)


def test_loop_in_reasoning_is_noticed() -> None:
    assert repeats_itself(Reply("", reasoning="wait, no. " * 200))
    assert repeats_itself(Reply("".join(f"step {k}\n" for k in range(100))))
    assert not repeats_itself(Reply(FASTER))
    assert not repeats_itself(Reply("yes " * 20))
    assert not repeats_itself(Reply(Path(repeats_itself.__code__.co_filename).read_text()))


@pytest.mark.parametrize(
    ("name", "loop"),
    [("counting", True), ("numbered_blocks", True), ("repeated_headers", True), ("copied_format", False),
     ("word_salad", False)],
)  # fmt: skip
def test_reply_of_small_real_model(name: str, loop: bool) -> None:
    """Replies of a model with 270 million weights to the code prompt, at most 400 tokens each."""
    text = (TESTS / "fixtures" / "replies" / f"{name}.md").read_text()
    assert repeats_itself(Reply(text)) == loop
    with pytest.raises(PatchRejected):
        apply_reply((ROOT / "nanogpt_target" / "train.py").read_text(), text)
