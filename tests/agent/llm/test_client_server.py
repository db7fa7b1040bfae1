"""What the client learns of its server: proxies, models, forms; and what becomes of keys."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from llm_client import ASK, KEY, clean_environment, client, dead_address, refused
from openai_server import Answer, OpenAIServer

from agent.errors import ModelMisconfigured, ModelUnavailable, UsageError
from agent.llm.api_keys import scrub, without_keys
from agent.llm.chat import ModelInfo, estimate_tokens
from agent.llm.client import ChatModel, normal_base_url

pytestmark = pytest.mark.usefixtures("clean_environment")
__all__ = ["clean_environment"]

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
    assert "Did you mean 'tin'?" in caplog.text


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


def test_key_outside_ascii_is_refused_and_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-naïve-key")
    with pytest.raises(UsageError, match="API key") as caught:
        ChatModel("http://host")
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
