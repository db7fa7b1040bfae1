"""The client against a scripted server over a real socket."""

from __future__ import annotations

import json
import time
from email.utils import formatdate
from typing import Any

import pytest
from llm_client import ASK, KEY, Clock, clean_environment, client, dead_address, refused
from openai_server import Answer, OpenAIServer

from agent.errors import ContextOverflow, ModelMisconfigured, ModelUnavailable
from agent.llm.chat import estimate_tokens
from agent.llm.responses import read_completion
from agent.llm.transcript import transcript

pytestmark = pytest.mark.usefixtures("clean_environment")
__all__ = ["clean_environment"]

# --- replies --------------------------------------------------------------------------------------------------------


def test_reply_has_text_usage_and_model() -> None:
    with OpenAIServer(["a small change"]) as server:
        reply = client(server).complete(ASK, temperature=0.5, seed=7, max_tokens=100)
    assert (reply.text, reply.finish_reason, reply.model, reply.attempts) == ("a small change", "stop", "tiny", 1)
    assert reply.tokens_in > 0
    assert reply.tokens_out > 0
    sent = server.chats[0]
    assert (sent["temperature"], sent["seed"], sent["max_tokens"]) == (0.5, 7, 100)
    assert "n" not in sent
    assert "response_format" not in sent


def test_reasoning_is_kept_apart_from_text() -> None:
    with OpenAIServer([Answer("the edit", reasoning="let me think")]) as server:
        reply = client(server).complete(ASK)
    assert (reply.text, reply.reasoning) == ("the edit", "let me think")


def test_reply_cut_off_has_finish_reason_length() -> None:
    with OpenAIServer([Answer(None, reasoning="and on and on", finish_reason="length")]) as server:
        reply = client(server).complete(ASK)
    assert (reply.text, reply.finish_reason) == ("", "length")


def test_empty_content_and_refusal_are_replies() -> None:
    with OpenAIServer([Answer(None), Answer(None, refusal="I cannot help with that")]) as server:
        model = client(server)
        assert model.complete(ASK).text == ""
        assert model.complete(ASK).refusal == "I cannot help with that"


def test_first_choice_with_text_is_taken() -> None:
    with OpenAIServer([Answer(choices=("", "second", "third"))]) as server:
        reply = client(server).complete(ASK, n=3)
    assert reply.text == "second"
    assert reply.choices == ("", "second", "third")
    assert server.chats[0]["n"] == 3


def test_cut_off_choice_is_dropped_beside_a_whole_one() -> None:
    cut, whole = (
        {"message": {"content": text}, "finish_reason": end} for text, end in (("ha", "length"), ("b", "stop"))
    )
    reply, alone = (read_completion(json.dumps({"choices": choices})) for choices in ([cut, whole], [cut]))
    assert (reply.text, reply.choices, reply.finish_reason) == ("b", ("", "b"), "stop")
    assert (alone.text, alone.finish_reason) == ("ha", "length")


@pytest.mark.parametrize("streams", [True, False])
def test_missing_usage_is_estimated_and_marked(streams: bool) -> None:
    answers = [Answer("x" * 350, reasoning="y" * 700, usage=used) for used in (False, True)]
    with OpenAIServer(answers, streams=streams) as server:
        guessed, counted = (client(server).complete(ASK) for _ in range(2))
    assert guessed.estimated
    assert (guessed.tokens_in, guessed.tokens_out) == (estimate_tokens(ASK), 316)
    assert "estimated" in transcript(guessed)
    assert not counted.estimated
    assert "estimated" not in transcript(counted)


def test_content_may_be_a_list_of_parts() -> None:
    raw = '{"choices": [{"message": {"content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}}]}'
    with OpenAIServer([Answer(raw=raw)]) as server:
        assert client(server).complete(ASK).text == "ab"


def test_schema_and_grammar_have_vllm_form() -> None:
    schema = {"type": "object"}
    with OpenAIServer(["{}", "x"]) as server:
        model = client(server)
        model.complete(ASK, schema=schema)
        model.complete(ASK, grammar='root ::= "x"')
    first, second = server.chats
    assert first["response_format"]["type"] == "json_schema"
    assert first["response_format"]["json_schema"]["schema"] == schema
    assert second["structured_outputs"] == {"grammar": 'root ::= "x"'}


# --- transient failures ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "failure",
    [
        Answer(status=408),
        Answer(status=409),
        Answer(status=429),
        Answer(status=500),
        Answer(status=503),
        Answer("whole", break_after=20),
        Answer(refuse=True),
        Answer(raw="<html>gateway</html>", content_type="text/html"),
        Answer(raw='{"choices": [{"mess'),
        Answer(raw='{"choices": []}'),
        Answer(raw='{"error": {"message": "provider is down", "code": 502}}'),
        Answer(raw="[1, 2]"),
        Answer(raw=""),
    ],
    ids=lambda failure: f"{failure.status}-{failure.raw or failure.break_after}",
)
def test_transient_failure_is_retried_with_backoff(failure: Answer) -> None:
    clock = Clock()
    with OpenAIServer([failure, failure, "at last"]) as server:
        reply = client(server, clock).complete(ASK)
    assert (reply.text, reply.attempts, len(reply.failures)) == ("at last", 3, 2)
    assert 0.5 <= clock.slept[0] <= 1.0
    assert 1.0 <= clock.slept[1] <= 2.0
    assert reply.seconds == sum(clock.slept)


def test_request_that_times_out_is_retried() -> None:
    with OpenAIServer([Answer(hang=True), *["now"] * 30]) as server:
        reply = client(server, timeout=0.5, max_attempts=30, patience=float("inf")).complete(ASK)
    assert reply.text == "now"
    assert "timed out" in reply.failures[0]


@pytest.mark.parametrize("value", ["7", "date"])
def test_retry_after_is_honoured(value: str) -> None:
    header = formatdate(time.time() + 600, usegmt=True) if value == "date" else value
    clock = Clock()
    with OpenAIServer([Answer(status=429, retry_after=header), "ok"]) as server:
        client(server, clock).complete(ASK)
    low, high = (300, 670) if value == "date" else (7, 7.8)
    assert low <= clock.slept[0] <= high


@pytest.mark.parametrize("value", ["soon", "-3", "nan", "inf", "Thu, 99 Foo 2026"])
def test_invalid_retry_after_is_ignored(value: str) -> None:
    clock = Clock()
    with OpenAIServer([Answer(status=503, retry_after=value), "ok"]) as server:
        client(server, clock).complete(ASK)
    assert 0 <= clock.slept[0] <= 1.0


def test_retries_end_after_patience() -> None:
    clock = Clock()
    with (
        OpenAIServer([], at_end=Answer(status=503, message="loading the weights")) as server,
        pytest.raises(ModelUnavailable, match="loading the weights") as caught,
    ):
        client(server, clock, patience=40, max_attempts=100).complete(ASK)
    assert caught.value.exit_status == 3
    assert not isinstance(caught.value, ModelMisconfigured)
    assert sum(clock.slept) <= 40
    assert len(clock.slept) > 3


def test_retry_after_beyond_patience_ends_at_once() -> None:
    clock = Clock()
    with OpenAIServer([Answer(status=429, retry_after="86400")]) as server, pytest.raises(ModelUnavailable):
        client(server, clock).complete(ASK)
    assert not clock.slept


# --- lasting failures -----------------------------------------------------------------------------------------------


def test_no_server_names_the_option() -> None:
    with pytest.raises(ModelUnavailable, match=r"refused.*--llm-base-url"):
        client(dead_address()).describe()


def test_wrong_key_is_explained_and_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    with OpenAIServer(key="sk-right-0123456789") as server:
        with pytest.raises(ModelMisconfigured, match="OVERNIGHT_LLM_API_KEY"):
            client(server).describe()
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        with pytest.raises(ModelMisconfigured, match="OVERNIGHT_LLM_API_KEY") as caught:
            client(server).complete(ASK)
        assert KEY not in str(caught.value)


def test_wrong_model_name_lists_the_models() -> None:
    with OpenAIServer(["x"], models={"qwen-27b": 8192, "qwen-0.8b": 8192}) as server:
        for call in (lambda m: m.describe(), lambda m: m.complete(ASK)):
            with pytest.raises(ModelMisconfigured, match=r"qwen-28b.*qwen-27b, qwen-0.8b.*--llm-model"):
                call(client(server, model="qwen-28b"))
        with pytest.raises(ModelMisconfigured, match="--llm-model"):
            client(server, model=None).describe()


def test_long_prompt_raises_overflow_with_window() -> None:
    with OpenAIServer(["x"], models={"tiny": 1000}) as server:
        with pytest.raises(ContextOverflow, match="--max-model-len") as caught:
            client(server).complete([{"role": "user", "content": "word " * 2000}])
        assert caught.value.window == 1000
        with pytest.raises(ContextOverflow):
            client(server).complete(ASK, max_tokens=2000)


@pytest.mark.parametrize("status", [400, 413, 422, 500])
def test_overflow_is_recognised_for_each_status(status: int) -> None:
    answer = refused(status, '{"error": "the request exceeds the available context size (2048 tokens)"}')
    with OpenAIServer([answer]) as server, pytest.raises(ContextOverflow) as caught:
        client(server).complete(ASK)
    assert caught.value.window == 2048


def test_overflow_with_status_200_is_recognised() -> None:
    raw = '{"error": {"message": "This endpoint\'s maximum context length is 4096 tokens.", "code": 400}}'
    with OpenAIServer([Answer(raw=raw)]) as server, pytest.raises(ContextOverflow):
        client(server).complete(ASK)


def test_refused_request_is_not_repeated() -> None:
    with OpenAIServer([Answer(status=400, message="role tool is not valid")]) as server:
        with pytest.raises(ModelMisconfigured, match="role tool is not valid"):
            client(server).complete(ASK, temperature=0.5)
        assert len(server.chats) == 1


def test_exhausted_quota_is_not_retried() -> None:
    answer = Answer(status=429, code="insufficient_quota")
    with OpenAIServer([answer]) as server, pytest.raises(ModelMisconfigured):
        client(server).complete(ASK)
    assert len(server.chats) == 1


# --- optional parameters --------------------------------------------------------------------------------------------


def openai_error(param: str, message: str) -> str:
    return f'{{"error": {{"message": "{message}", "param": "{param}", "code": "unsupported_value"}}}}'


@pytest.mark.parametrize(
    ("parameter", "status", "body"),
    [
        ("temperature", 400, openai_error("temperature", "'temperature' does not support 0.5. Only 1 is supported.")),
        ("seed", 422, '{"detail": [{"type": "extra_forbidden", "loc": ["body", "seed"], "msg": "Extra inputs"}]}'),
        ("seed", 400, '{"object": "error", "message": {"detail": [{"loc": ["body", "seed"], "msg": "Extra"}]}}'),
        ("seed", 400, '[{"error": {"message": "Invalid JSON payload. Unknown name \\"seed\\": Cannot find field."}}]'),
        ("n", 400, '{"error": "Only one completion choice is allowed"}'),
        ("n", 422, '{"detail": [{"loc": ["body", "n"], "msg": "Input should be 1"}]}'),
        ("n", 400, "n must be 1"),
        ("response_format", 400, '{"error": "json_schema is not supported"}'),
        ("structured_outputs", 400, '{"message": "Grammar error: cannot compile"}'),
        ("max_tokens", 400, "property 'max_tokens' is unsupported"),
    ],
)
def test_refused_parameter_is_left_out(
    parameter: str, status: int, body: str, caplog: pytest.LogCaptureFixture
) -> None:
    options: Any = {"temperature": 0.5, "seed": 7, "max_tokens": 100, "n": 2, "schema": {}, "grammar": 'root ::= "x"'}
    refusal = refused(status, body)
    with OpenAIServer(["first", "second"], refuses={parameter: refusal}) as server:
        model = client(server)
        assert [model.complete(ASK, **options).text for _ in range(2)] == ["first", "second"]
    first, *later = server.chats
    assert len(later) == 2, "the refusal is remembered"
    assert parameter in first
    for sent in later:
        assert set(first) - set(sent) == {parameter}
    assert [record.levelname for record in caplog.records if record.name == "overnight.llm"] == ["WARNING"]
    assert parameter in caplog.text


def test_max_tokens_is_renamed_where_refused() -> None:
    words = "Unsupported parameter: 'max_tokens' is not supported. Use 'max_completion_tokens' instead."
    with OpenAIServer(["x", "y"], refuses={"max_tokens": refused(400, openai_error("max_tokens", words))}) as server:
        model = client(server)
        model.complete(ASK, max_tokens=100)
        model.complete(ASK, max_tokens=200)
    assert [body.get("max_completion_tokens") for body in server.chats] == [None, 100, 200]


def test_two_refused_parameters_are_left_out() -> None:
    refuses = {"seed": refused(400, "unknown field: seed"), "temperature": refused(400, "unknown field: temperature")}
    with OpenAIServer(["x"], refuses=refuses) as server:
        assert client(server).complete(ASK, seed=1, temperature=0.5).text == "x"
    assert len(server.chats) == 3


def test_refusal_that_persists_is_reported_and_forgotten(caplog: pytest.LogCaptureFixture) -> None:
    broken = Answer(status=400, message="temperature or whatever")
    with OpenAIServer([broken, broken, "x"]) as server:
        model = client(server)
        with pytest.raises(ModelMisconfigured, match="temperature or whatever"):
            model.complete(ASK, temperature=0.5)
        model.complete(ASK, temperature=0.5)
    assert "temperature" in server.chats[-1]
    assert not caplog.records
