"""Reads the bodies of error responses: the reason in any JSON shape, and whether the context overflowed."""

from __future__ import annotations

import html
import json
import re
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from agent.text import line

_LIMIT = 600  # characters of a reason
_REASONS = (
    "error", "errors", "title", "message", "error_message", "error_description", "detail", "details", "description",
    "reason", "msg", "metadata", "raw",
)  # fmt: skip
# The words of vLLM, SGLang, LM Studio, llama.cpp, Ollama, TGI, OpenRouter, Gemini, Anthropic and Cohere.
_OVERFLOW = re.compile(
    r"context[ _]length|context (?:window|size|limit)|max(?:imum)? context|context the overflows|exceed_context"
    r"|\bn_ctx\b|n_keep|max_(?:model|seq)_len|maximum (?:model|input|prompt|sequence) length"
    r"|(?:prompt|input|request|messages?) (?:is |are )?too (?:long|large)|too many (?:input |prompt )?tokens"
    r"|`?\binputs`?(?: tokens)?\b.{0,30} must (?:be|have)|exceeds? the maximum number of (?:input )?tokens"
    r"|reduce the length of",
    re.IGNORECASE,
)
_WINDOW = re.compile(
    r"(?:context[ _](?:length|size|window|limit)|max(?:imum)? context|(?:maximum|model) (?:input |model )?length|n_ctx"
    r"|max_(?:model|seq)_len)(?: (?:is|of|only|limit))*[ :=(]*(\d{2,9})"
    r"|must (?:be <=|have less than) (\d{2,9})|(\d{2,9}) maximum|number of (?:input )?tokens allowed \((\d{2,9})"
    r"|cannot exceed (\d{2,9})",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class ErrorBody:
    """An error response.

    Attributes:
        reason: the server's words on one line, "" for an empty body.
        code: of OpenAI's form, such as ``insufficient_quota``.
        param: name of the request parameter that the server complains about.
        overflow: whether the request does not fit the context window.
        window: size of the context window in tokens, if the body names it.
    """

    reason: str = ""
    code: str = ""
    param: str = ""
    overflow: bool = False
    window: int | None = None


def read_error(body: str) -> ErrorBody:
    """Read the body of an error response: JSON of any shape, HTML or plain text."""
    data = _parsed(body)
    reason = line(_reason(data) or (json.dumps(data) if isinstance(data, dict | list) and data else ""), _LIMIT)
    code, kind, size = (_find(data, name) for name in ("code", "type", "n_ctx"))
    overflow = _OVERFLOW.search(f"{reason} {code} {kind}") is not None
    if not isinstance(size, int):
        found = _WINDOW.search(reason) if overflow else None
        size = next((int(group) for group in (found.groups() if found else ()) if group), None)
    return ErrorBody(reason, str(code or ""), str(_find(data, "param") or ""), overflow, size)


def _parsed(text: str) -> Any:
    """``text`` as JSON; the title of an HTML page; else the text itself."""
    text = text.strip().removeprefix("\ufeff")
    with suppress(ValueError, RecursionError):
        return json.loads(text)
    if not text.startswith("<"):
        return text
    title = re.search(r"<title[^>]*>(.+?)</title>", text, re.IGNORECASE | re.DOTALL)
    return html.unescape(title.group(1) if title else re.sub(r"<[^>]*>", " ", text))


def _reason(value: Any, depth: int = 8) -> str:
    """The texts under the usual keys, each once, joined with colons."""
    if isinstance(value, str):
        nested = _parsed(value) if value.lstrip().startswith(("{", "[", "<")) else value
        return nested.strip() if isinstance(nested, str) else _reason(nested, depth - 1) if depth else value
    if isinstance(value, list) and depth:
        return "; ".join(filter(None, (_reason(item, depth - 1) for item in value)))
    if not isinstance(value, dict) or not depth:
        return ""
    lower = {str(key).lower(): item for key, item in value.items()}
    parts = list(dict.fromkeys(filter(None, (_reason(lower.get(key), depth - 1) for key in _REASONS))))
    if parts and isinstance(lower.get("loc"), list | tuple):  # FastAPI names the parameter here
        parts.insert(0, ".".join(str(part) for part in lower["loc"] if part != "body"))
    return ": ".join(filter(None, parts))


def _find(value: Any, name: str, depth: int = 8) -> str | int | None:
    """The first text or number under the key ``name``, at any depth."""
    if isinstance(value, dict) and isinstance(value.get(name), str | int):
        found: str | int = value[name]
        return found
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return next((got for item in inner if depth and (got := _find(item, name, depth - 1)) is not None), None)
