"""The client against a scripted server over a real socket."""

from __future__ import annotations

import random
import socket
import time
from collections.abc import Callable
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
from openai_server import Answer, OpenAIServer

from agent.errors import ContextOverflow, ModelMisconfigured, ModelUnavailable, UsageError
from agent.llm.api_keys import scrub
from agent.llm.client import KEY_VARIABLES, ChatModel, ModelInfo, estimate_tokens, normal_base_url, without_keys

ASK = [{"role": "user", "content": "What shall we try?"}]
KEY = "sk-secret-0123456789"


@pytest.fixture(autouse=True)
def _no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*KEY_VARIABLES, "OPENAI_BASE_URL", "OPENAI_LOG"):
        monkeypatch.delenv(name, raising=False)


class Clock:
    """Time that passes only while the client sleeps."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


def client(server: OpenAIServer | str, clock: Clock | None = None, **options: Any) -> ChatModel:
    clock = clock or Clock()
    url = server if isinstance(server, str) else server.base_url
    options = {"model": "tiny", "timeout": 20.0, "rng": random.Random(1)} | options
    return ChatModel(url, sleep=clock.sleep, clock=lambda: clock.now, **options)


def dead_address() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}/v1"


# --- answers --------------------------------------------------------------------------------------------------------


def test_a_reply_has_text_usage_and_model() -> None:
    with OpenAIServer(["a small change"]) as server:
        reply = client(server).complete(ASK, temperature=0.5, seed=7, max_tokens=100)
    assert (reply.text, reply.finish_reason, reply.model, reply.attempts) == ("a small change", "stop", "tiny", 1)
    assert reply.tokens_in > 0
    assert reply.tokens_out > 0
    sent = server.chats[0]
    assert (sent["temperature"], sent["seed"], sent["max_tokens"]) == (0.5, 7, 100)
    assert "n" not in sent
    assert "response_format" not in sent


def test_reasoning_stays_out_of_the_text() -> None:
    with OpenAIServer([Answer("the edit", reasoning="let me think")]) as server:
        reply = client(server).complete(ASK)
    assert (reply.text, reply.reasoning) == ("the edit", "let me think")


def test_a_reply_that_was_cut_off_says_so() -> None:
    with OpenAIServer([Answer(None, reasoning="and on and on", finish_reason="length")]) as server:
        reply = client(server).complete(ASK)
    assert (reply.text, reply.finish_reason) == ("", "length")


def test_empty_content_and_refusals_are_replies() -> None:
    with OpenAIServer([Answer(None), Answer(None, refusal="I cannot help with that")]) as server:
        model = client(server)
        assert model.complete(ASK).text == ""
        assert model.complete(ASK).refusal == "I cannot help with that"


def test_of_several_choices_the_first_with_text_is_taken() -> None:
    with OpenAIServer([Answer(choices=("", "second", "third"))]) as server:
        reply = client(server).complete(ASK, n=3)
    assert reply.text == "second"
    assert reply.choices == ("", "second", "third")
    assert server.chats[0]["n"] == 3


def test_usage_may_be_missing() -> None:
    with OpenAIServer([Answer("x", usage=False)]) as server:
        assert client(server).complete(ASK).tokens_in == 0


def test_content_may_be_a_list_of_parts() -> None:
    raw = '{"choices": [{"message": {"content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}}]}'
    with OpenAIServer([Answer(raw=raw)]) as server:
        assert client(server).complete(ASK).text == "ab"


def test_forms_are_sent_as_vllm_reads_them() -> None:
    schema = {"type": "object"}
    with OpenAIServer(["{}", "x"]) as server:
        model = client(server)
        model.complete(ASK, schema=schema)
        model.complete(ASK, grammar='root ::= "x"')
    first, second = server.chats
    assert first["response_format"]["type"] == "json_schema"
    assert first["response_format"]["json_schema"]["schema"] == schema
    assert second["structured_outputs"] == {"grammar": 'root ::= "x"'}


# --- failures that pass ---------------------------------------------------------------------------------------------


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
        Answer(raw="[1, 2]"),
        Answer(raw=""),
    ],
    ids=lambda failure: f"{failure.status}-{failure.raw or failure.break_after}",
)
def test_what_passes_is_tried_again(failure: Answer) -> None:
    clock = Clock()
    with OpenAIServer([failure, failure, "at last"]) as server:
        reply = client(server, clock).complete(ASK)
    assert (reply.text, reply.attempts, len(reply.failures)) == ("at last", 3, 2)
    assert 0.5 <= clock.slept[0] <= 1.0
    assert 1.0 <= clock.slept[1] <= 2.0
    assert reply.seconds == sum(clock.slept)


def test_a_hanging_server_is_left_and_asked_again() -> None:
    with OpenAIServer([Answer(hang=True), "now"]) as server:
        reply = client(server, timeout=0.5).complete(ASK)
    assert reply.attempts == 2
    assert "timed out" in reply.failures[0]


@pytest.mark.parametrize("value", ["7", "date"])
def test_the_servers_wish_to_wait_is_honoured(value: str) -> None:
    wish = formatdate(time.time() + 30, usegmt=True) if value == "date" else value
    clock = Clock()
    with OpenAIServer([Answer(status=429, retry_after=wish), "ok"]) as server:
        client(server, clock).complete(ASK)
    low, high = (20, 34) if value == "date" else (7, 7.8)
    assert low <= clock.slept[0] <= high


@pytest.mark.parametrize("wish", ["soon", "-3", "nan", "inf", "Thu, 99 Foo 2026"])
def test_a_senseless_wish_does_no_harm(wish: str) -> None:
    clock = Clock()
    with OpenAIServer([Answer(status=503, retry_after=wish), "ok"]) as server:
        client(server, clock).complete(ASK)
    assert 0 <= clock.slept[0] <= 1.0


def test_patience_ends() -> None:
    clock = Clock()
    with (
        OpenAIServer([], at_end=Answer(status=503, message="loading the weights")) as server,
        pytest.raises(ModelUnavailable, match=r"gave no answer in \d+ attempts.*loading the weights") as caught,
    ):
        client(server, clock, patience=40, max_attempts=100).complete(ASK)
    assert caught.value.exit_status == 3
    assert sum(clock.slept) <= 40
    assert len(clock.slept) > 3


def test_a_wish_beyond_all_patience_is_not_waited_for() -> None:
    clock = Clock()
    with (
        OpenAIServer([Answer(status=429, retry_after="86400")]) as server,
        pytest.raises(ModelUnavailable, match="asks to wait 8"),
    ):
        client(server, clock).complete(ASK)
    assert not clock.slept


# --- failures that stay ---------------------------------------------------------------------------------------------


def test_no_server_at_the_address() -> None:
    with pytest.raises(ModelUnavailable, match=r"no answer.*refused.*--llm-base-url"):
        client(dead_address()).describe()


def test_a_wrong_key_is_explained_and_not_shown() -> None:
    with OpenAIServer(key="sk-right-0123456789") as server:
        with pytest.raises(ModelMisconfigured, match=r"refuses the API key.*OVERNIGHT_LLM_API_KEY") as caught:
            client(server, api_key=KEY).complete(ASK)
        assert KEY not in str(caught.value)
        with pytest.raises(ModelMisconfigured, match="wants an API key"):
            client(server).describe()


def test_a_wrong_model_name_lists_what_there_is() -> None:
    with OpenAIServer(["x"], models={"qwen-27b": 8192, "qwen-0.8b": 8192}) as server:
        for call in (lambda m: m.describe(), lambda m: m.complete(ASK)):
            with pytest.raises(
                ModelMisconfigured, match=r"no model 'qwen-28b'; it has qwen-27b, qwen-0.8b. Did you mean qwen-27b"
            ):
                call(client(server, model="qwen-28b"))
        with pytest.raises(ModelMisconfigured, match="choose one with --llm-model"):
            client(server, model=None).describe()


def test_a_prompt_beyond_the_window_is_explained() -> None:
    with OpenAIServer(["x"], models={"tiny": 1000}) as server:
        with pytest.raises(ContextOverflow, match=r"maximum context length is 1000.*--max-model-len") as caught:
            client(server).complete([{"role": "user", "content": "word " * 2000}])
        assert caught.value.window == 1000
        with pytest.raises(ContextOverflow):
            client(server).complete(ASK, max_tokens=2000)


@pytest.mark.parametrize(
    ("message", "code", "window"),
    [
        ("The decoder prompt (length 9000) is longer than the maximum model length of 8192.", None, 8192),
        ("This model's maximum context length is 4096 tokens. However, you requested 9000 tokens", None, 4096),
        ("the request exceeds the available context size (2048 tokens), try increasing it", None, 2048),
        ("too many tokens", "context_length_exceeded", None),
    ],
)
def test_overflow_in_the_words_of_other_servers(message: str, code: str | None, window: int | None) -> None:
    with (
        OpenAIServer([Answer(status=400, message=message, code=code)]) as server,
        pytest.raises(ContextOverflow) as caught,
    ):
        client(server).complete(ASK)
    assert caught.value.window == window


def test_a_request_that_is_not_accepted_is_not_repeated() -> None:
    with OpenAIServer([Answer(status=400, message="grammar is not valid")]) as server:
        with pytest.raises(ModelMisconfigured, match=r"does not accept the request.*grammar is not valid"):
            client(server).complete(ASK)
        assert len(server.chats) == 1


def test_an_empty_account_is_not_waited_for() -> None:
    with (
        OpenAIServer([Answer(status=429, code="insufficient_quota")]) as server,
        pytest.raises(ModelMisconfigured, match="no quota"),
    ):
        client(server).complete(ASK)


# --- who answers ----------------------------------------------------------------------------------------------------


def test_describe_reads_the_server_and_asks_once() -> None:
    with OpenAIServer(models={"tiny": 8192}, structured=("schema", "grammar")) as server:
        model = client(server, model=None)
        assert model.describe() == ModelInfo("tiny", 8192, "vllm", "0.32.0", frozenset({"schema", "grammar"}))
        asked = len(server.seen)
        model.describe()
        assert len(server.seen) == asked


def test_forms_that_are_ignored_are_not_believed() -> None:
    with OpenAIServer(structured=("schema",)) as server:
        assert client(server).describe().structured == {"schema"}
    with OpenAIServer(owned_by="other", version=None, models={"tiny": None}) as server:
        assert client(server).describe() == ModelInfo("tiny", None, "other", "", frozenset())


def test_tokens_are_counted_by_the_server_else_estimated() -> None:
    message = [{"role": "user", "content": "x" * 700}]
    with OpenAIServer() as server:
        assert client(server).count_tokens(message) == 179
    with OpenAIServer(tokenizer=False) as server:
        model = client(server)
        assert model.count_tokens(message) == estimate_tokens(message) == 208
        model.count_tokens(message)
        assert sum(seen.path == "/tokenize" for seen in server.seen) == 1


@pytest.mark.parametrize(
    ("given", "normal"),
    [
        ("http://host:8000", "http://host:8000/v1"),
        ("http://host:8000/", "http://host:8000/v1"),
        ("http://host:8000/v1/", "http://host:8000/v1"),
        ("https://host/api/openai", "https://host/api/openai"),
    ],
)
def test_addresses_are_completed(given: str, normal: str) -> None:
    assert normal_base_url(given) == normal


@pytest.mark.parametrize("given", ["localhost:8000", "", "ftp://host", "http://", "http://host:port", "http://[::1"])
def test_addresses_that_are_none(given: str) -> None:
    with pytest.raises(UsageError, match="--llm-base-url"):
        ChatModel(given)


# --- keys -----------------------------------------------------------------------------------------------------------


def test_the_key_reaches_the_server_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    monkeypatch.setenv("OVERNIGHT_LLM_API_KEY", KEY + "\n")
    caplog.set_level("DEBUG")
    said: list[Callable[[], object]] = []
    with OpenAIServer(["fine"], key=KEY, at_end=Answer(status=400, message=f"your key {KEY} is odd")) as server:
        model = client(server)
        reply = model.complete(ASK)
        with pytest.raises(ModelMisconfigured) as caught:
            model.complete(ASK)
        said += [lambda: repr(model), lambda: reply, lambda: caught.value, lambda: caught.value.__cause__]
    assert all(KEY not in str(line()) for line in said)
    assert KEY not in caplog.text
    assert "[key]" in str(caught.value)


def test_a_key_with_odd_characters_is_refused_without_showing_it() -> None:
    with pytest.raises(UsageError, match="API key") as caught:
        ChatModel("http://host", api_key="sk-naïve-key")
    assert "naïve" not in str(caught.value)


def test_children_get_no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    assert without_keys({"PATH": "/bin", "OPENAI_API_KEY": "a", "OVERNIGHT_LLM_API_KEY": "b"}) == {"PATH": "/bin"}


def test_scrub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "plain-looking-key")
    assert scrub("a plain-looking-key b") == "a [key] b"
    assert scrub("Authorization: Bearer abcdefgh") == "Authorization: Bearer [key]"
    assert scrub("sk-abcdefgh1234 hf_abcdefgh1234") == "[key] [key]"
    assert scrub("with my-own-key", "my-own-key") == "with [key]"
    assert scrub("task-based sk-ip") == "task-based sk-ip"
