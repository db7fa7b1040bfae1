"""The code proposer: conversations, prompts, transcripts and headers."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest
from asking import FASTER, LOST, SLOWER, SOURCE, ask, context, record, reply, said
from openai_server import Answer, OpenAIServer
from scripted import ScriptedModel

from agent.errors import ModelUnavailable
from agent.llm.chat import Message, Reply
from agent.llm.client import ChatModel
from agent.patch.apply import apply_reply
from agent.proposers.code.header import read_header
from agent.proposers.code.proposer import CodeProposer
from agent.types import Proposal, to_json

# --- proposals ------------------------------------------------------------------------------------------------------


def test_reply_becomes_a_proposal() -> None:
    proposal, model = ask([FASTER])
    assert proposal.text == SOURCE.replace("0.02", "0.04")
    assert apply_reply(SOURCE, proposal.diff) == proposal.text
    assert (proposal.subject, proposal.category, proposal.rationale) == ("Raise the rate", "optimiser", "It is low.")
    assert (proposal.proposer, proposal.source, proposal.parent, proposal.model) == (
        "code",
        "llm",
        "c0ffee",
        "scripted",
    )
    assert proposal.ending is None
    assert proposal.usage["calls"] == 1
    assert proposal.usage["tokens_in"] > 100
    assert len(model.requests) == 1
    assert msgspec.convert(json.loads(json.dumps(to_json(proposal))), Proposal) == proposal


def test_diff_is_normalised() -> None:
    sloppy = "<think>maybe DEPTH?</think>Here you go\n\n@@ -99 @@\n-LEARNING_RATE = 0.02\n+LEARNING_RATE = 0.04  \n"
    proposal, _ = ask([sloppy])
    assert proposal.ending is None
    assert proposal.diff.startswith("--- a/train.py\n+++ b/train.py\n@@ -")
    assert proposal.subject


def test_rejected_reply_gets_one_repair_round() -> None:
    proposal, model = ask([LOST, FASTER])
    assert proposal.ending is None
    assert proposal.usage["repairs"] == 1
    assert proposal.usage["calls"] == 2
    assert [m["role"] for m in model.requests[1].messages] == ["user", "assistant", "user"]
    assert "could not be used" in said(model, 1)
    assert "NOT THERE = 1" in said(model, 1)


def test_repair_rounds_are_bounded() -> None:
    for repairs in (0, 1, 2):
        proposal, model = ask([LOST] * 5, repairs=repairs)
        assert proposal.ending == "patch_rejected"
        assert "NOT THERE" in proposal.reason
        assert proposal.diff == ""
        assert proposal.text is None
        assert len(model.requests) == 1 + repairs


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (
            Reply("", finish_reason="length", tokens_out=512, reasoning="hmm"),
            "cut off after 512 tokens, all of it reasoning",
        ),
        (Reply(FASTER, finish_reason="length", tokens_out=512), "cut off after 512 tokens"),
        (Reply(""), "empty"),
        (Reply("  \n"), "empty"),
        (Reply("", refusal="I must not"), "refused: I must not"),
        (Reply("", finish_reason="content_filter"), "refused"),
    ],
)
def test_reply_without_answer_is_model_failed(bad: Reply, reason: str) -> None:
    proposal, model = ask([bad, bad])
    assert proposal.ending == "model_failed"
    assert reason in proposal.reason
    assert reason in said(model, 1)


def test_grammar_is_sent_where_enforced() -> None:
    for structured, expected in ((("grammar",), True), ((), False)):
        model = ScriptedModel([FASTER], structured=structured)
        CodeProposer(model).ask(context())
        assert (model.requests[0].grammar is not None) == expected
        assert not expected or "--- a/train.py" in str(model.requests[0].grammar)


def test_model_unavailable_is_raised() -> None:
    with pytest.raises(ModelUnavailable):
        ask([ModelUnavailable("gone")])
    with pytest.raises(ModelUnavailable):
        ask([LOST, ModelUnavailable("gone")])


# --- no repeats -----------------------------------------------------------------------------------------------------


def test_repeated_idea_raises_the_temperature() -> None:
    other_spelling = reply("LEARNING_RATE = 0.02", "LEARNING_RATE = 4e-2  # bolder")
    given = context(history=(record(7, "LEARNING_RATE = 0.04"),))
    proposal, model = ask([FASTER, other_spelling, SLOWER], given)
    assert proposal.ending is None
    assert proposal.text == SOURCE.replace("0.02", "0.01")
    assert proposal.usage["repeats"] == 2
    assert "#7 (Idea 7)" in said(model, 1)
    assert "gain -0.1000 (-2.0 sd" in said(model, 1)
    temperatures = [request.temperature or 0 for request in model.requests]
    assert temperatures == sorted(set(temperatures))


def test_return_to_baseline_is_a_duplicate() -> None:
    ask = context(baseline=apply_reply(SOURCE, FASTER, "train.py"))
    proposal = CodeProposer(ScriptedModel([FASTER] * 9)).ask(ask)
    assert proposal.ending == "duplicate"
    assert "baseline" in proposal.reason


def test_model_with_one_idea_ends_as_duplicate() -> None:
    given = context(history=(record(7, "LEARNING_RATE = 0.04"), record(8, "LEARNING_RATE = 0.01")))
    proposal, model = ask([FASTER] * 9, given, repeats=3)
    assert proposal.ending == "duplicate"
    assert "#7" in proposal.reason
    assert len(model.requests) == 4
    assert max(request.temperature or 0 for request in model.requests) <= 1.3


def test_duplicate_names_the_attempt_that_ran() -> None:
    first = record(3, "LEARNING_RATE = 0.04")
    second = record(4, "LEARNING_RATE = 0.04")
    second = dataclasses.replace(second, proposal=dataclasses.replace(second.proposal, ending="duplicate"), runs=())
    proposal, _ = ask([FASTER], context(history=(second, first)), repeats=0)
    assert "#3" in proposal.reason


def test_edit_without_effect_ends_as_no_effect() -> None:
    same = reply("LEARNING_RATE = 0.02", "LEARNING_RATE = 2e-2  # the same")
    seeds = reply("manual_seed(1)", "manual_seed(1337)")
    for lines, reason in (([same] * 4, ""), ([seeds] * 4, "seeds")):
        proposal, model = ask(lines)
        assert proposal.ending == "no_effect"
        assert reason in proposal.reason
        assert len(model.requests) == 4


def test_each_request_has_its_own_seed() -> None:
    _, one = ask([LOST, FASTER], context(trial=3, seed=5))
    _, two = ask([LOST, FASTER], context(trial=3, seed=5))
    _, other = ask([LOST, FASTER], context(trial=4, seed=5))
    assert [r.seed for r in one.requests] == [r.seed for r in two.requests]
    assert one.requests[0] == two.requests[0]
    assert len({r.seed for r in (*one.requests, *other.requests)}) == 4


# --- transcripts ----------------------------------------------------------------------------------------------------


def test_every_round_has_a_transcript(tmp_path: Path) -> None:
    directory = tmp_path / "trials/0001"
    given = context(run_directory=tmp_path, transcripts=directory, history=(record(7, "LEARNING_RATE = 0.04"),))
    proposal, model = ask([Reply(LOST, reasoning="what now", model="m"), FASTER, SLOWER], given)
    assert proposal.transcript == "trials/0001"
    assert sorted(path.name for path in directory.iterdir()) == [
        "prompt.md", "repair-1-prompt.md", "repair-1-reply.md", "repeat-1-prompt.md", "repeat-1-reply.md", "reply.md",
    ]  # fmt: skip
    assert (directory / "prompt.md").read_text() == said(model)
    written = (directory / "reply.md").read_text()
    assert "what now" in written
    assert LOST in written


def test_transcript_holds_no_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = "plain-words-as-key"
    monkeypatch.setenv("OVERNIGHT_LLM_API_KEY", key)
    echo = Answer(FASTER + f"\nYour key is {key}", reasoning=f"the key {key}")
    with OpenAIServer([echo], key=key) as server:
        CodeProposer(ChatModel(server.base_url)).ask(context(notes=f"key: {key}", transcripts=tmp_path))
    assert all(key not in path.read_text() for path in tmp_path.iterdir())


def test_proposal_over_a_socket() -> None:
    with OpenAIServer([Answer(status=503, retry_after="0"), LOST, FASTER], models={"tiny": 8192}) as server:
        proposal = CodeProposer(ChatModel(server.base_url)).ask(context())
    assert (proposal.ending, proposal.model) == (None, "tiny")
    assert proposal.usage["requests"] == 3
    assert all(body["max_tokens"] <= 8192 // 3 for body in server.chats)


# --- headers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "category", "subject", "rationale"),
    [
        ("Category: schedule\nSubject: Warm up\nRationale: Less noise.\n```diff", "schedule", "Warm up", "Less noise."),
        ("**Category:** Optimizer\n**Subject:** Use `Lion`\n**Why:** It\nis.\n", "optimiser", "Use `Lion`", "It is."),
        ("### Subject: Wide MLP\n- Category: the model\n- Why: more room\n", "architecture", "Wide MLP", "more room"),
        ("Sure! Here is a diff.\n\nLess decay\n\nIt is too strong.\n```diff\n", "", "Less decay", "It is too strong."),
        ("<think>Subject: no</think>Subject: yes\n--- a/x", "", "yes", ""),
        ('{"category": "efficiency", "subject": "Fuse", "rationale": "r", "diff": "d"}', "efficiency", "Fuse", "r"),
        ("category：data\nsubject：更大的批次\n", "batch and data", "更大的批次", ""),
        ("Category: magic\nSubject: \x1b[1m#'Spell'\n", "other", "Spell", ""),
        ("--- a/train.py\nSubject: inside the diff", "", "", ""),
        ("", "", "", ""),
    ],
)  # fmt: skip
def test_header_forms_of_models(text: str, category: str, subject: str, rationale: str) -> None:
    assert tuple(read_header(text))[:3] == (category, subject, rationale)


def test_long_subject_is_cut_between_words() -> None:
    subject = read_header("Subject: " + "word " * 50).subject
    assert len(subject) <= 72
    assert subject.endswith("word…")


def test_scripted_line_may_be_a_function() -> None:
    def line(messages: Sequence[Message]) -> str:
        return FASTER if "LEARNING_RATE" in messages[0]["content"] else "?"

    assert ask([line])[0].ending is None
