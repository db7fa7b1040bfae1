"""Reads what an OpenAI-compatible server sends: completions, the list of models, and which forms it enforces."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from agent.llm.api_keys import scrub
from agent.llm.chat import Options, Reply
from agent.llm.connection import RequestFailed
from agent.llm.error_bodies import read_error

PROBE = [{"role": "user", "content": "Answer with the word yes."}]
_WINDOWS = ("max_model_len", "context_length", "max_context_length", "n_ctx", "n_ctx_train")
PROBE_WORD = "azure-17"  # no model says this unless a schema or a grammar enforces it


def read_completion(body: str) -> Reply:
    """The reply in the body of a chat completion. Raises RequestFailed, also for an error sent with status 200."""
    try:
        data = json.loads(body)
        if not data.get("choices") and data.get("error"):
            error = read_error(body)
            status = int(error.code) if error.code.isdecimal() and 400 <= int(error.code) < 600 else 200
            raise RequestFailed(f"an error in place of a chat completion: {scrub(error.reason)}", status, error)
        choices = [(choice.get("message") or {}, choice.get("finish_reason")) for choice in data["choices"]]
        usage = data.get("usage") or {}
        texts = tuple(text_of(message.get("content")) for message, _ in choices)
        whole = [text if finish != "length" else "" for text, (_, finish) in zip(texts, choices, strict=True)]
        texts = tuple(whole) if any(text.strip() for text in whole) else texts  # half an answer may look like another
        best = next((i for i, text in enumerate(texts) if text.strip()), 0)
        message, finish = choices[best]
        return Reply(
            text=texts[best],
            reasoning=text_of(message.get("reasoning_content") or message.get("reasoning")),
            finish_reason=str(finish or "stop"),
            model=str(data.get("model") or ""),
            tokens_in=int(usage.get("prompt_tokens") or 0),
            tokens_out=int(usage.get("completion_tokens") or 0),
            choices=texts,
            refusal=text_of(message.get("refusal")),
        )
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
        raise RequestFailed(f"an answer that is no chat completion: {scrub(body[:200])!r}", 200) from None


def text_of(content: Any) -> str:
    """The content of a message as a string; some servers send a list of parts."""
    if isinstance(content, list):
        return "".join(str(part.get("text") or "") for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""


def read_models(body: str) -> list[dict[str, Any]]:
    """The entries of /models; an empty list for anything else."""
    try:
        return [entry for entry in json.loads(body)["data"] if isinstance(entry, dict) and "id" in entry]
    except (ValueError, KeyError, TypeError, RecursionError):
        return []


def window_of(entry: Mapping[str, Any]) -> int | None:
    """The context window of an entry of /models, in the words of vLLM, SGLang, llama.cpp and others."""
    meta = entry.get("meta")
    facts = {**(meta if isinstance(meta, dict) else {}), **entry}
    sizes = [facts.get(name) for name in _WINDOWS]
    return next((size for size in sizes if isinstance(size, int) and size > 0), None)


def enforced_forms(ask: Callable[..., Reply], window: int | None) -> frozenset[str]:
    """Which of ``schema`` and ``grammar`` the server enforces: each demands a word that contradicts ``PROBE``.

    Args:
        ask: sends messages with the given options; ``needed`` is the request parameter that must be sent.
        window: of the model in tokens, None if unknown.

    Raises:
        RequestFailed: the server refuses ``PROBE`` in any form.
    """
    properties = {"answer": {"type": "string", "enum": [PROBE_WORD]}}
    schema = {"type": "object", "properties": properties, "required": ["answer"], "additionalProperties": False}
    # Room for reasoning: with a reasoning parser the form binds only what follows the reasoning.
    room = min(2048, (window or 8192) // 2)
    forms: dict[str, tuple[str, Options, str]] = {
        "schema": ("response_format", {"schema": schema}, f'{{"answer":"{PROBE_WORD}"}}'),
        "grammar": ("structured_outputs", {"grammar": f'root ::= "{PROBE_WORD}"'}, PROBE_WORD),
    }
    found = set()
    for form, (needed, option, answer) in forms.items():
        try:
            text = ask(PROBE, needed=needed, max_tokens=room, **option).text
        except RequestFailed as error:
            if error.status in (401, 403, 404):  # no form changes this
                raise
        else:
            found |= {form} if "".join(text.split()) == answer else set()
    return frozenset(found)
