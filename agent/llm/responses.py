"""Reads what OpenAI-compatible servers send: completions, context windows, and the many ways to say no."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any

from agent.llm.chat import Reply

_OVERFLOW = re.compile(
    r"context_length|context length|context window|context size|maximum model length|exceed_context|prompt is too long",
    re.IGNORECASE,
)
_WINDOW = re.compile(
    r"(?:context length(?: is)?(?: only)?|model length of|context size\D{0,12})\s*\(?(\d{2,9})", re.IGNORECASE
)


class NoAnswer(Exception):
    """The server said 200 and sent something that is no chat completion. Tried again."""


def read_completion(body: str) -> Reply:
    """The answer in the body of a chat completion. Raises NoAnswer."""
    try:
        data = json.loads(body)
        choices = [(choice.get("message") or {}, choice.get("finish_reason")) for choice in data["choices"]]
        usage = data.get("usage") or {}
        texts = tuple(_text(message.get("content")) for message, _ in choices)
        best = next((i for i, text in enumerate(texts) if text.strip()), 0)
        message, finish = choices[best]
        return Reply(
            text=texts[best],
            reasoning=_text(message.get("reasoning_content") or message.get("reasoning")),
            finish_reason=str(finish or "stop"),
            model=str(data.get("model") or ""),
            tokens_in=int(usage.get("prompt_tokens") or 0),
            tokens_out=int(usage.get("completion_tokens") or 0),
            choices=texts,
            refusal=_text(message.get("refusal")),
        )
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        raise NoAnswer(f"an answer that is no chat completion: {body[:200]!r}") from None


def _text(content: Any) -> str:
    """Content as a string; some servers send a list of parts."""
    if isinstance(content, list):
        return "".join(str(part.get("text") or "") for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""


def overflow(said: str, code: str | None = None) -> tuple[bool, int | None]:
    """Whether an error message says that the context window is too small, and the window's size if it names it."""
    if code != "context_length_exceeded" and not _OVERFLOW.search(said):
        return False, None
    found = _WINDOW.search(said)
    return True, int(found.group(1)) if found else None


def window_of(entry: Mapping[str, Any]) -> int | None:
    """The context window in the words of vLLM and SGLang, llama.cpp, and others."""
    meta = entry.get("meta")
    places = [entry.get("max_model_len"), entry.get("context_length"), entry.get("max_context_length")]
    places += [meta.get("n_ctx"), meta.get("n_ctx_train")] if isinstance(meta, dict) else []
    return next((int(size) for size in places if isinstance(size, int) and size > 0), None)


def retry_after(error: Any) -> float | None:
    """Seconds that the server asks for, as a number or as a date; None if it does not, or not sensibly."""
    value = str(error.response.headers.get("retry-after") or "").strip()
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - time.time()
        except (ValueError, TypeError, OverflowError):
            return None
    return max(0.0, seconds) if seconds < 1e9 else None


def one_line(error: Any) -> str:
    """What an error says, without line breaks, and what lies behind a broken connection."""
    said = " ".join(str(error).split())
    cause = error.__cause__
    if cause is not None and str(cause):
        said = f"{said.rstrip('.')} ({' '.join(str(cause).split())})"
    return said[:600]


def listed(names: list[str]) -> str:
    shown = ", ".join(names[:12])
    return shown + (f" and {len(names) - 12} more" if len(names) > 12 else "")
