"""Replies that arrive token by token, from a server on the loopback."""

from __future__ import annotations

import threading

import pytest
from budgets import REQUEST_SECONDS
from llm_client import ASK, Clock, clean_environment, client, refused
from openai_server import Answer, OpenAIServer, event

from agent.errors import ModelMisconfigured
from agent.llm.streaming import lines_of

pytestmark = pytest.mark.usefixtures("clean_environment")
__all__ = ["clean_environment"]

DONE = "data: [DONE]"
END = (event({}, finish="stop"), DONE)
FOREVER = 300.0  # seconds of silence that no test waits for
LIMIT = 0.5  # seconds that a test waits for a limit; a reply that arrives later is asked for once more
AGAIN = ["now"] * 30
MANY = {"max_attempts": 30, "patience": float("inf")}


def test_requests_ask_for_stream_and_usage() -> None:
    with OpenAIServer(["x"]) as server:
        client(server).complete(ASK)
    assert (server.chats[0]["stream"], server.chats[0]["stream_options"]) == (True, {"include_usage": True})


def test_reply_may_take_longer_than_the_limit_between_tokens() -> None:
    thinking = [piece for k in range(12) for piece in (event({"reasoning_content": f"{k} "}), LIMIT / 5)]
    with OpenAIServer([Answer(events=(*thinking, event({"content": "done"}), *END))] * 30) as server:
        reply = client(server, timeout=REQUEST_SECONDS, token_timeout=LIMIT, **MANY).complete(ASK)
    assert reply.text == "done"
    assert reply.reasoning.split() == [str(k) for k in range(12)]


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ((FOREVER,), "no first token within 0.5 s (--llm-timeout)"),
        ((event({"role": "assistant", "content": ""}), FOREVER), "no first token"),
        ((": keep-alive", 0.2) * 1000, "no first token"),
        (
            (event({"content": "a"}) + "\n\n" + event({"content": "b"}), FOREVER),  # in one piece
            "no further token within 0.5 s (--llm-token-timeout), after 2",
        ),
        ((event({"content": "a"}), *((": keep-alive", 0.2) * 1000)), "no further token"),
        ((event({"content": "a"}), *((event({}), 0.2) * 1000)), "no further token"),
    ],
    ids=["headers only", "role only", "comments", "after two tokens", "comments after a token", "empty events"],
)
def test_stream_without_tokens_ends_and_is_retried(lines: tuple[str | float, ...], words: str) -> None:
    first = LIMIT if "no first" in words else REQUEST_SECONDS
    with OpenAIServer([Answer(events=lines), *AGAIN]) as server:
        reply = client(server, timeout=first, token_timeout=LIMIT, **MANY).complete(ASK)
    assert reply.text == "now"
    assert reply.attempts >= 2
    assert words in reply.failures[0]


def test_limit_of_the_library_names_the_same_option(monkeypatch: pytest.MonkeyPatch) -> None:
    wait = threading.Event.wait
    monkeypatch.setattr(threading.Event, "wait", lambda event, timeout=None: wait(event, timeout and timeout + 1))
    with OpenAIServer([Answer(events=(event({"content": "a"}), FOREVER)), *AGAIN]) as server:
        reply = client(server, timeout=REQUEST_SECONDS, token_timeout=LIMIT, **MANY).complete(ASK)
    assert "--llm-token-timeout" in reply.failures[0]


def test_limit_between_tokens_may_be_shorter_than_the_first() -> None:
    with OpenAIServer([Answer(events=(event({"content": "a"}), FOREVER)), *AGAIN]) as server:
        reply = client(server, timeout=FOREVER, token_timeout=LIMIT, **MANY).complete(ASK)
    assert reply.text == "now"
    assert "--llm-token-timeout" in reply.failures[0]


def test_abandoned_stream_closes_its_connection() -> None:
    endless = [piece for k in range(5000) for piece in ("event: ping", 0.05)]
    with OpenAIServer([Answer(events=(event({"content": "a"}), *endless)), *AGAIN]) as server:
        client(server, timeout=REQUEST_SECONDS, token_timeout=LIMIT, **MANY).complete(ASK)
        assert server.left.wait(REQUEST_SECONDS), "the server still generates"


def test_comments_and_other_fields_are_ignored() -> None:
    lines = (": OPENROUTER PROCESSING", "event: message\nid: 7\nretry: 10", event({"content": "yes"}), *END)
    with OpenAIServer([Answer(events=lines)]) as server:
        assert client(server).complete(ASK).text == "yes"


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
def test_reasoning_of_a_stream_is_kept_apart(name: str) -> None:
    lines = (event({name: "let me "}), event({name: "think"}), event({"content": "an edit"}), *END)
    with OpenAIServer([Answer(events=lines)]) as server:
        reply = client(server).complete(ASK)
    assert (reply.text, reply.reasoning) == ("an edit", "let me think")


@pytest.mark.parametrize("broken", [Answer("a long reply", break_after=200), Answer(events=(event({"content": "a"}),))])
def test_stream_that_breaks_off_is_retried(broken: Answer) -> None:
    with OpenAIServer([broken, "whole"]) as server:
        reply = client(server).complete(ASK)
    assert (reply.text, reply.attempts) == ("whole", 2)


def test_stream_may_end_without_done() -> None:
    with OpenAIServer([Answer(events=(event({"content": "a"}), END[0]))]) as server:
        assert client(server).complete(ASK).attempts == 1


@pytest.mark.parametrize(
    "line",
    [
        'data: {"error": {"message": "provider is down", "code": 502}}',
        'error: {"message": "provider is down", "code": 500}',
        'data: {"error": "provider is down"}',
    ],
)
def test_error_inside_a_stream_is_retried_with_its_reason(line: str) -> None:
    with OpenAIServer([Answer(events=(event({"content": "half"}), line, DONE)), "whole"]) as server:
        reply = client(server).complete(ASK)
    assert (reply.text, reply.attempts) == ("whole", 2)
    assert "provider is down" in reply.failures[0]


def test_lasting_error_inside_a_stream_is_not_retried() -> None:
    answer = Answer(events=('data: {"error": {"message": "the role is wrong", "code": 400}}', DONE))
    with OpenAIServer([answer]) as server, pytest.raises(ModelMisconfigured, match="role is wrong"):
        client(server).complete(ASK)


@pytest.mark.parametrize("line", ["data: {", "data: [1]", 'data: {"choices": [1]}', "data: " + "[" * 100_000])
def test_events_that_are_no_chunks_are_retried(line: str) -> None:
    with OpenAIServer([Answer(events=(line, DONE)), "whole"]) as server:
        assert client(server, Clock()).complete(ASK).attempts == 2


def test_choices_of_a_stream_are_joined_by_index() -> None:
    parts = [event({"content": text}, index) for index, text in ((1, "c"), (0, "a"), (1, "d"), (0, "b"))]
    ends = [event({}, index, "stop") for index in (0, 1)]
    with OpenAIServer([Answer(events=(*parts, *ends, DONE))]) as server:
        assert client(server).complete(ASK, n=2).choices == ("ab", "cd")


def test_server_that_does_not_stream_is_asked_once(caplog: pytest.LogCaptureFixture) -> None:
    with OpenAIServer(["a", "b"], streams=False) as server:
        model = client(server)
        assert [model.complete(ASK).text for _ in range(2)] == ["a", "b"]
    assert [body.get("stream") for body in server.chats] == [True, None]
    assert [record.message for record in caplog.records if "--llm-timeout" in record.message]
    assert "stream_options" not in server.chats[1]


@pytest.mark.parametrize("name", ["stream", "stream_options"])
def test_refused_stream_parameter_is_left_out_once(name: str, caplog: pytest.LogCaptureFixture) -> None:
    refuses = {name: refused(400, f'{{"error": {{"message": "Unknown parameter", "param": "{name}"}}}}')}
    with OpenAIServer(["a", "b"], refuses=refuses) as server:
        model = client(server)
        replies = [model.complete(ASK) for _ in range(2)]
    assert [reply.text for reply in replies] == ["a", "b"]
    assert len(server.chats) == 3
    assert not [body for body in server.chats[1:] if name in body]
    assert [reply.estimated for reply in replies] == [name == "stream_options"] * 2
    assert name in caplog.text


def test_only_line_feeds_end_a_line() -> None:
    text = "data: a\u2028b\x0bc\r"
    assert list(lines_of([text.encode()[:9], text.encode()[9:] + b"\n", b"x"])) == [text.encode(), b"x"]
    with OpenAIServer([Answer(events=(event({"content": "a\u2028b"}), *END))]) as server:
        assert client(server).complete(ASK).text == "a\u2028b"
