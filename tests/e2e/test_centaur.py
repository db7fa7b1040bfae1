"""Centaur with a real vLLM server: even random weights reply with valid diffs of the block."""

from __future__ import annotations

import re
from typing import Protocol

from places import ROOT

from agent.errors import ReplyRejected
from agent.llm.client import ChatModel
from agent.proposers import make_proposer
from agent.proposers.search.answer_forms import read_diff
from agent.proposers.search.base import NoPoint
from agent.space.space import SearchSpace

REPLY = re.compile(r"^# Reply\n\n<!--.*?-->\n\n(.*?)(?=^# Prompt\n|\Z)", re.MULTILINE | re.DOTALL)
BEYOND_A_GRAMMAR = re.compile("does not hold")  # a constraint between two parameters
REPLIES = 8


class Server(Protocol):
    """The fixture `vllm_server`."""

    base_url: str


def transcript_of(error: ReplyRejected) -> str:
    """Raise the error again unless a grammar cannot prevent it. Returns its transcript."""
    if not BEYOND_A_GRAMMAR.search(str(error)):
        raise error
    return error.transcript if isinstance(error, NoPoint) else ""


def test_every_reply_is_a_valid_diff(vllm_server: Server) -> None:
    space = SearchSpace.from_toml(ROOT / "nanogpt_target" / "target.toml")
    method = make_proposer("centaur", space, seed=1, llm=ChatModel(vllm_server.base_url), share=1.0, screen=False)
    replies = 0
    for trial in range(10 + 2 * REPLIES):
        try:
            suggestion = method.suggest()
        except NoPoint as error:
            talk = transcript_of(error)
        else:
            assert suggestion.source == ("cma" if trial < 10 else "llm")
            assert space.valid(suggestion.params) == []
            method.tell(suggestion.params, 1.0 + 0.001 * (trial % 7))
            talk = suggestion.transcript
        for reply in REPLY.findall(talk):
            block = talk.split("```python\n")[1].split("\n```")[0] + "\n"
            try:
                assert set(read_diff(space, block, reply)[0]) == set(space.names)
            except ReplyRejected as error:
                transcript_of(error)
            replies += 1
        if replies >= REPLIES:
            return
    raise AssertionError(f"only {replies} replies")
