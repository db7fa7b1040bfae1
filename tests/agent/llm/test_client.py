"""The client against a scripted server over a real socket."""

from __future__ import annotations

import json
import random
import socket
import time
from collections.abc import Callable
from email.utils import formatdate
from typing import Any

import pytest
from openai_server import Answer, OpenAIServer

from agent.errors import ContextOverflow, ModelMisconfigured, ModelUnavailable, UsageError
from agent.llm.api_keys import KEY_VARIABLES, scrub, without_keys
from agent.llm.chat import ModelInfo, estimate_tokens
from agent.llm.client import ChatModel, normal_base_url
from agent.llm.responses import read_completion

ASK = [{"role": "user", "content": "What shall we try?"}]
KEY = "sk-secret-0123456789"


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*KEY_VARIABLES, "OPENAI_BASE_URL", "OPENAI_LOG"):
        monkeypatch.delenv(name, raising=False)
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


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


def refused(status: int, body: str) -> Answer:
    return Answer(status=status, raw=body)


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


def test_usage_may_be_missing() -> None:
    with OpenAIServer([Answer("x", usage=False)]) as server:
        assert client(server).complete(ASK).tokens_in == 0


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
    with OpenAIServer([Answer(hang=True), "now"]) as server:
        reply = client(server, timeout=0.5).complete(ASK)
    assert reply.attempts == 2
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


def test_wrong_key_is_explained_and_hidden() -> None:
    with OpenAIServer(key="sk-right-0123456789") as server:
        with pytest.raises(ModelMisconfigured, match="OVERNIGHT_LLM_API_KEY") as caught:
            client(server, api_key=KEY).complete(ASK)
        assert KEY not in str(caught.value)
        with pytest.raises(ModelMisconfigured, match="OVERNIGHT_LLM_API_KEY"):
            client(server).describe()


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


# --- proxies --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("url", ["socks://127.0.0.1:1080/", "socks4://127.0.0.1:1", "ftp://127.0.0.1:1"])
def test_unusable_proxy_names_its_variable(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", url)
    with OpenAIServer(["x"]) as server, pytest.raises(ModelMisconfigured, match=r"ALL_PROXY.*NO_PROXY"):
        client(server).complete(ASK)


@pytest.mark.parametrize("no_proxy", ["localhost,127.0.0.1", "*", "127.0.0.0/8", "127.0.0.1:{port}"])
def test_no_proxy_bypasses_an_unusable_proxy(no_proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks://127.0.0.1:1080")
    with OpenAIServer(["x"]) as server:
        monkeypatch.setenv("NO_PROXY", no_proxy.format(port=server.port))
        assert client(server).complete(ASK).text == "x"


def test_connection_refused_names_the_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    proxy = dead_address().replace("http://", "http://user:secret@").removesuffix("/v1")
    monkeypatch.setenv("HTTP_PROXY", proxy)
    with OpenAIServer(["x"]) as server, pytest.raises(ModelUnavailable, match="HTTP_PROXY") as caught:
        client(server).complete(ASK)
    assert proxy.rpartition("@")[2] in str(caught.value)
    assert "secret" not in str(caught.value)


def test_broken_certificate_file_is_an_environment_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere/certificates.pem")
    with pytest.raises(ModelMisconfigured, match="SSL_CERT_FILE"):
        client("https://127.0.0.1:9").complete(ASK)


# --- description ----------------------------------------------------------------------------------------------------


def test_describe_asks_the_server_once() -> None:
    with OpenAIServer(models={"tiny": 8192}, structured=("schema", "grammar")) as server:
        model = client(server, model=None)
        assert model.describe() == ModelInfo("tiny", 8192, "vllm", "0.32.0", frozenset({"schema", "grammar"}))
        asked = len(server.seen)
        model.describe()
        assert len(server.seen) == asked


def test_forms_that_the_server_ignores_are_unsupported() -> None:
    with OpenAIServer(structured=("schema",)) as server:
        assert client(server).describe().structured == {"schema"}
    with OpenAIServer(owned_by="other", version=None, models={"tiny": None}) as server:
        assert client(server).describe() == ModelInfo("tiny", None, "other", "", frozenset())


def test_forms_that_the_server_refuses_are_unsupported() -> None:
    refuses = {name: refused(400, f"unknown field {name}") for name in ("response_format", "temperature")}
    with OpenAIServer(structured=("schema", "grammar"), refuses=refuses) as server:
        assert client(server).describe().structured == {"grammar"}


@pytest.mark.parametrize(
    "listing", [refused(400, '{"error": "not implemented"}'), refused(403, "{}"), refused(404, ""), refused(501, "")]
)
def test_named_model_works_without_model_list(listing: Answer, caplog: pytest.LogCaptureFixture) -> None:
    with OpenAIServer(["x"], listing=listing) as server:
        model = client(server)
        assert model.describe().id == "tiny"
        assert model.complete(ASK).text == "x"
        with pytest.raises(ModelMisconfigured):
            client(server, model=None).describe()
    assert (listing.status == 404) != ("--llm-model" in caplog.text)


def test_named_model_outside_the_list_is_used(caplog: pytest.LogCaptureFixture) -> None:
    with OpenAIServer(["x"], models={"tiny": 8192}, listing=Answer(raw='{"data": [{"id": "tin"}]}')) as server:
        assert client(server).describe().id == "tiny"
    assert "Did you mean tin?" in caplog.text


def test_tokens_are_counted_by_server_or_estimated() -> None:
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
def test_base_url_is_completed(given: str, normal: str) -> None:
    assert normal_base_url(given) == normal


@pytest.mark.parametrize("given", ["localhost:8000", "", "ftp://host", "http://", "http://host:port", "http://[::1"])
def test_invalid_base_url_is_a_usage_error(given: str) -> None:
    with pytest.raises(UsageError, match="--llm-base-url"):
        ChatModel(given)


# --- keys -----------------------------------------------------------------------------------------------------------


def test_key_reaches_only_the_server(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv("OVERNIGHT_LLM_API_KEY", KEY + "\n")
    caplog.set_level("DEBUG")
    texts: list[Callable[[], object]] = []
    with OpenAIServer(["fine"], key=KEY, at_end=Answer(status=400, message=f"your key {KEY} is odd")) as server:
        model = client(server)
        reply = model.complete(ASK)
        with pytest.raises(ModelMisconfigured) as caught:
            model.complete(ASK)
        texts += [lambda: repr(model), lambda: reply, lambda: caught.value, lambda: caught.value.__cause__]
    assert all(KEY not in str(text()) for text in texts)
    assert KEY not in caplog.text
    assert "[key]" in str(caught.value)


def test_key_outside_ascii_is_refused_and_hidden() -> None:
    with pytest.raises(UsageError, match="API key") as caught:
        ChatModel("http://host", api_key="sk-naïve-key")
    assert "naïve" not in str(caught.value)


def test_child_environment_holds_no_key() -> None:
    assert without_keys({"PATH": "/bin", "OPENAI_API_KEY": "a", "OVERNIGHT_LLM_API_KEY": "b"}) == {"PATH": "/bin"}


def test_scrub_replaces_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "plain-looking-key")
    assert scrub("a plain-looking-key b") == "a [key] b"
    assert scrub("Authorization: Bearer abcdefgh") == "Authorization: Bearer [key]"
    assert scrub("sk-abcdefgh1234 hf_abcdefgh1234") == "[key] [key]"
    assert scrub("with my-own-key", "my-own-key") == "with [key]"
    assert scrub("task-based sk-ip") == "task-based sk-ip"
