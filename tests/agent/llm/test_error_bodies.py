"""Error responses in the shapes and the words of different servers."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.llm.connection import covered_by_no_proxy
from agent.llm.error_bodies import read_error

LM_STUDIO = (
    "Trying to keep the first 10136 tokens when context the overflows. However, the model is loaded with context "
    "length of only 7866 tokens, which is not enough."
)
TGI = "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096. Given: 6000 `inputs` tokens"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"error": {"message": "why", "type": "t", "param": None, "code": 400}}, "why"),
        ({"error": "why"}, "why"),
        ({"error": ["why", "and why"]}, "why; and why"),
        ({"error": {"error": {"message": "why"}}}, "why"),
        ([{"error": {"code": 400, "message": "why", "status": "INVALID_ARGUMENT"}}], "why"),
        ({"object": "error", "message": "why", "code": 400}, "why"),
        ({"error": "Bad Request", "message": "why", "statusCode": 400}, "Bad Request: why"),
        ({"error": True, "message": "why"}, "why"),
        ({"error": {"message": "why"}, "message": "why"}, "why"),
        ({"errors": [{"message": "why"}]}, "why"),
        ({"detail": [{"loc": ["body"], "msg": "why"}]}, "why"),
        ({"Message": "why"}, "why"),
        ({"detail": "why"}, "why"),
        ({"detail": [{"loc": ["body", "seed"], "msg": "Extra inputs"}]}, "seed: Extra inputs"),
        ({"detail": {"error": {"message": "why"}}}, "why"),
        ({"type": "about:blank", "title": "Unprocessable", "status": 422, "detail": "why"}, "Unprocessable: why"),
        ({"error": {"message": "Provider error", "metadata": {"raw": '{"error": {"message": "why"}}'}}},
         "Provider error: why"),
        ({"error": {"type": "odd", "number": 7}}, '{"error": {"type": "odd", "number": 7}}'),
        ("why", "why"),
        ({}, ""),
        (None, ""),
    ],
)  # fmt: skip
def test_reason_is_found_in_json(body: object, reason: str) -> None:
    assert read_error(json.dumps(body)).reason == reason


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("plain words\n", "plain words"),
        ("<html><head><title>502 Bad&nbsp;Gateway</title></head><body>long</body></html>", "502 Bad Gateway"),
        ("<!DOCTYPE html><p>No <b>title</b></p>", "No title"),
        ("", ""),
        ('{"error": "half', '{"error": "half'),
        ('\ufeff{"error": "why"}', "why"),
        ("\x1b[31mred\u202e", "red\\u202e"),
    ],
)
def test_reason_is_found_in_text(body: str, reason: str) -> None:
    assert read_error(body).reason == reason


SCALARS = st.none() | st.booleans() | st.text() | st.integers() | st.floats()
KEYS = st.sampled_from(["error", "detail", "loc", "x"])


@given(st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(KEYS, inner)))
def test_any_json_has_one_short_line(body: object) -> None:
    reason = read_error(json.dumps(body)).reason
    assert "\n" not in reason
    assert len(reason) <= 600


def test_deep_and_long_bodies_are_cut() -> None:
    assert len(read_error("[" * 100_000).reason) <= 600
    assert read_error('{"error":' * 50 + '"why"' + "}" * 50).reason
    assert len(read_error("word " * 1000).reason) <= 600


@pytest.mark.parametrize(
    ("body", "window"),
    [
        ("The decoder prompt (length 9000) is longer than the maximum model length of 8192.", 8192),
        ("This model's maximum context length is 4096 tokens. However, you requested 9000 tokens", 4096),
        ("max_tokens=9000 cannot be greater than max_model_len=8192", 8192),
        ("The input (9000 tokens) is longer than the model's context length (8192 tokens).", 8192),
        ({"error": LM_STUDIO}, 7866),
        ({"error": "The number of tokens to keep from the initial prompt is greater than the context length."}, None),
        ({"error": "Cannot truncate prompt with n_keep (9000) >= n_ctx (4096)"}, 4096),
        ("the request exceeds the available context size (2048 tokens), try increasing it", 2048),
        ({"error": {"message": "too long", "type": "exceed_context_size_error", "n_prompt_tokens": 9, "n_ctx": 4}}, 4),
        ({"error": "input length exceeds maximum context length"}, None),
        ({"msg": "input length 9000 exceeds model maximum context 8192"}, 8192),
        ({"error": "the input length exceeds the context length"}, None),
        ({"error": TGI, "error_type": "validation"}, 4096),
        ({"error": "Input validation error: `inputs` must have less than 1024 tokens. Given: 2000"}, 1024),
        ({"error": {"message": "This endpoint's maximum context length is 131072 tokens. However, ...", "code": 400}},
         131072),
        ({"error": {"message": "prompt is too long: 210000 tokens > 200000 maximum"}}, 200000),
        ({"error": {"message": "The input token count (9) exceeds the maximum number of tokens allowed (1048576)."}},
         1048576),
        ({"message": "too many tokens: total number of tokens in the prompt cannot exceed 4081"}, 4081),
        ({"error": {"message": "Please reduce the length of the messages or completion."}}, None),
        ({"error": {"message": "no", "code": "context_length_exceeded"}}, None),
    ],
)  # fmt: skip
def test_overflow_and_window_are_recognised(body: object, window: int | None) -> None:
    error = read_error(body if isinstance(body, str) else json.dumps(body))
    assert error.overflow
    assert error.window == window


@pytest.mark.parametrize(
    "body",
    [
        "temperature must be at most 1",
        "`max_tokens` must be less than or equal to `8192`, the maximum value is less than the `context_window`",
        "max_tokens is too large: 10000. This model supports at most 4096 completion tokens",
        "Input should be a valid list",
        "",
    ],
)
def test_other_reasons_are_no_overflow(body: str) -> None:
    assert not read_error(body).overflow


@pytest.mark.parametrize(
    ("no_proxy", "covered"),
    [
        ("models.example.org", True),
        ("example.org", True),
        (".example.org", True),
        ("*.example.org", True),
        ("http://models.example.org", True),
        ("localhost, models.example.org:8000", True),
        ("models.example.org:9000", False),
        ("ample.org", False),
        ("10.0.0.0/8", False),
        ("::1,fe80::1:2", False),
        ("", False),
    ],
)
def test_no_proxy_covers_host(no_proxy: str, covered: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setenv("NO_PROXY", no_proxy)
    assert covered_by_no_proxy("models.example.org", 8000) == covered


@pytest.mark.parametrize(("host", "entry"), [("10.1.2.3", "10.0.0.0/8"), ("::1", "::1"), ("::1", "[::1]:8000")])
def test_no_proxy_covers_address(host: str, entry: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setenv("NO_PROXY", entry)
    assert covered_by_no_proxy(host, 8000)
