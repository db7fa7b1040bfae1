"""The model client with a real vLLM server: protocol, limits and errors. The model's weights are random."""

from __future__ import annotations

import json
import re
import time
import urllib.request
from collections.abc import Callable
from typing import Protocol

import budgets
import pytest

from agent.errors import ContextOverflow, ModelMisconfigured, ModelUnavailable
from agent.llm.client import ChatModel
from agent.llm.retries import Retries
from agent.patch.apply import apply_reply

HELLO = [{"role": "user", "content": "Say something."}]

BLOCK = """\
DEPTH = 8
WIDTH = 64
print(DEPTH, WIDTH)
"""
DIFF_GRAMMAR = r"""
root ::= header "-DEPTH = 8\n+DEPTH = " depth "\n WIDTH = 64\n print(DEPTH, WIDTH)\n"
header ::= "--- a/train.py\n+++ b/train.py\n@@ -1,3 +1,3 @@\n"
depth ::= [4-7] | "9" | "1" [0-9] | "2" [0-4]
"""
SCHEMA = {
    "type": "object",
    "properties": {
        "DEPTH": {"type": "integer", "minimum": 4, "maximum": 24},
        "WINDOW_PATTERN": {"type": "string", "enum": ["L", "SL", "SSSL"]},
    },
    "required": ["DEPTH", "WINDOW_PATTERN"],
    "additionalProperties": False,
}


class Server(Protocol):
    """The fixture `vllm_server`."""

    base_url: str
    model: str
    context: int


@pytest.fixture(scope="module")
def model(vllm_server: Server) -> ChatModel:
    return ChatModel(vllm_server.base_url)


def test_describe_reports_server_and_structured_outputs(model: ChatModel, vllm_server: Server) -> None:
    info = model.describe()
    assert (info.id, info.max_model_len, info.server) == (vllm_server.model, vllm_server.context, "vllm")
    assert re.match(r"\d+\.\d+", info.version)
    assert info.structured == {"schema", "grammar"}


def test_wrong_model_name_suggests_the_right_one(vllm_server: Server) -> None:
    wrong = ChatModel(vllm_server.base_url, vllm_server.model + "y")
    with pytest.raises(ModelMisconfigured, match=rf"tinyy.*{vllm_server.model}\b"):
        wrong.complete(HELLO, max_tokens=4)


def test_too_long_prompt_raises_context_overflow(model: ChatModel, vllm_server: Server) -> None:
    long = [{"role": "user", "content": "x = 1\n" * vllm_server.context}]
    assert model.count_tokens(long) > vllm_server.context
    with pytest.raises(ContextOverflow) as raised:
        model.complete(long)
    assert raised.value.window == vllm_server.context


def test_context_window_bounds_the_reply(model: ChatModel, vllm_server: Server) -> None:
    nearly = [{"role": "user", "content": "x" * (vllm_server.context * 9 // 10)}]
    while (left := vllm_server.context - model.count_tokens(nearly)) > 200:
        nearly[0]["content"] += "x" * (left // 2)
    reply = model.complete(nearly, grammar='root ::= "a" root', max_tokens=vllm_server.context)
    assert reply.finish_reason == "length"
    assert 0 < reply.tokens_out <= left
    assert reply.tokens_in + reply.tokens_out <= vllm_server.context


def test_token_count_matches_the_server(model: ChatModel) -> None:
    code = "def f(x):\n    return x ** 2\n" * 40
    talk = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": code}]
    assert model.count_tokens(talk) == model.complete(talk, max_tokens=1).tokens_in


def test_cut_reply_has_finish_reason_length(model: ChatModel) -> None:
    reply = model.complete(HELLO, grammar='root ::= "a" root', max_tokens=16)
    assert (reply.finish_reason, reply.tokens_out, reply.attempts) == ("length", 16, 1)


def test_all_choices_are_returned(model: ChatModel) -> None:
    word = "root ::= [a-z] [a-z] [a-z] [a-z]"
    reply = model.complete(HELLO, n=3, temperature=1.0, seed=1, grammar=word, max_tokens=16)
    assert len(reply.choices) == 3
    assert all(re.fullmatch("[a-z]{4}", choice) for choice in reply.choices)
    assert reply.text == reply.choices[0]


@pytest.mark.parametrize("seed", range(8))
def test_schema_bounds_hold(model: ChatModel, seed: int) -> None:
    values = json.loads(model.complete(HELLO, schema=SCHEMA, temperature=1.0, seed=seed, max_tokens=200).text)
    assert set(values) == {"DEPTH", "WINDOW_PATTERN"}
    assert type(values["DEPTH"]) is int
    assert 4 <= values["DEPTH"] <= 24
    assert values["WINDOW_PATTERN"] in ("L", "SL", "SSSL")


@pytest.mark.parametrize("seed", range(4))
def test_grammar_yields_an_applicable_diff(model: ChatModel, seed: int) -> None:
    reply = model.complete(HELLO, grammar=DIFF_GRAMMAR, temperature=1.0, seed=seed, max_tokens=400)
    edited = apply_reply(BLOCK, reply.text)
    depth = re.match(r"DEPTH = (\d+)\n", edited)
    assert depth is not None
    assert int(depth[1]) != 8
    assert edited == BLOCK.replace("DEPTH = 8", f"DEPTH = {depth[1]}")


def test_abandoned_request_ends_on_the_server(vllm_server: Server, model: ChatModel) -> None:
    hasty = ChatModel(vllm_server.base_url, vllm_server.model, token_timeout=1e-3, retries=Retries(max_attempts=1))
    with pytest.raises(ModelUnavailable, match="1 attempt"):
        hasty.complete(HELLO, grammar='root ::= "a" root')  # endless: only the context window would stop it
    wait_for(lambda: running_requests(vllm_server) == 0)
    assert model.complete(HELLO, grammar='root ::= "yes"', max_tokens=16).text == "yes"


def running_requests(server: Server) -> int:
    """Running and waiting requests, as the server reports them."""
    with urllib.request.urlopen(
        server.base_url.removesuffix("/v1") + "/metrics", timeout=budgets.REQUEST_SECONDS
    ) as answer:
        counts = re.findall(r"^vllm:num_requests_(?:running|waiting)\{[^}]*\} (\S+)$", answer.read().decode(), re.M)
    assert counts
    return int(sum(map(float, counts)))


def wait_for(condition: Callable[[], bool], seconds: float = budgets.SERVER_STOP_SECONDS) -> None:
    """Wait until the condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"condition not met after {seconds:.0f} s"
        time.sleep(0.2)
