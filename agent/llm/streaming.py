"""Chat completions that arrive token by token, with time limits that follow the tokens."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from agent.llm.api_keys import scrub
from agent.llm.connection import Connection, RequestFailed
from agent.llm.responses import text_of

if TYPE_CHECKING:
    from httpx2 import Response

TEXTS = ("content", "reasoning_content", "reasoning", "refusal")  # fields of a delta that hold generated text
STREAM: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}}  # the latter adds the usage


def completion(connection: Connection, body: dict[str, Any], first: float, between: float) -> tuple[str, bool]:
    """Send a chat completion. Returns the body of the whole completion, and whether it was streamed.

    Args:
        connection: to the server, which may ignore ``stream``.
        body: of the request.
        first: seconds until the first token; until the end of a reply that is not streamed.
        between: seconds between two tokens of a streamed reply.

    Raises:
        RequestFailed: the server refuses the request, the stream breaks off, or a time limit passes.
    """
    if not body.get("stream"):
        whole = {name: value for name, value in body.items() if name not in STREAM}
        return connection.post("/chat/completions", whole), False
    began = time.monotonic()
    with (
        connection.streamed("/chat/completions", body) as response,
        tokens_in_time(response, began, first, between) as token,
    ):
        return joined(lines_of(response.iter_bytes()), token)


@contextmanager
def tokens_in_time(response: Response, began: float, first: float, between: float) -> Iterator[Callable[[], None]]:
    """Shut down the connection of a response whose tokens stop, and raise RequestFailed.

    Yields the function to call at each token. The read timeout of the HTTP library cannot do this: keep-alive comments
    reset it.
    """
    connected: socket.socket = response.extensions["network_stream"].get_extra_info("socket")
    due, tokens = began + first, 0
    over, late = threading.Event(), threading.Event()

    def watch() -> None:
        while (left := due - time.monotonic()) > 0:
            if over.wait(min(left, between)):  # the first token may bring ``due`` nearer
                return
        late.set()
        with suppress(OSError):
            socket.socket.shutdown(connected, socket.SHUT_RDWR)  # of TLS too: it wakes the reading thread

    def token() -> None:
        nonlocal due, tokens
        due, tokens = time.monotonic() + between, tokens + 1

    watcher = threading.Thread(target=watch, daemon=True, name="tokens")
    watcher.start()
    try:
        yield token
    except Exception:
        if not late.is_set() and time.monotonic() < due:  # the HTTP library's own limit may end before the watcher
            raise
        late.set()
    finally:
        over.set()
        watcher.join()
    if late.is_set():
        none = f"no first token within {first:g} s (--llm-timeout)"
        stopped = f"no further token within {between:g} s (--llm-token-timeout), after {tokens}"
        raise RequestFailed(f"timed out: {stopped if tokens else none}", 200)


def lines_of(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The lines of a body. Only line feeds count: JSON may hold the other line ends of Unicode."""
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        yield from whole
    yield rest


def joined(lines: Iterable[bytes], token: Callable[[], None]) -> tuple[str, bool]:
    """The body of a completion, and whether ``lines`` are a stream of server-sent events.

    An error event takes the place of the completion. ``token`` is called for each part with text.

    Raises:
        RequestFailed: the stream ends before the reply, or an event is no part of a completion.
    """
    choices: dict[int, dict[str, Any]] = {}
    facts: dict[str, Any] = {}
    other, streamed, done = list[bytes](), False, False
    for line in lines:
        name, _, data = line.partition(b":")
        if name not in (b"data", b"error"):  # a comment, which keeps the connection alive; or no stream at all
            other.append(line)
            continue
        streamed = True
        if done := data.strip() == b"[DONE]":
            break
        try:
            event = json.loads(data)
            if name == b"error" or event.get("error"):
                return json.dumps(event if "error" in event else {"error": event}), True
            facts |= {fact: event[fact] for fact in ("model", "usage") if event.get(fact)}
            for part in event.get("choices") or ():
                choice = choices.setdefault(int(part.get("index") or 0), {"message": {}, "finish_reason": None})
                choice["finish_reason"] = part.get("finish_reason") or choice["finish_reason"]
                if _add(part.get("delta") or {}, choice["message"]):
                    token()
        except (ValueError, TypeError, AttributeError, RecursionError):
            shown = scrub(data[:200].decode("utf-8", "replace").strip())
            raise RequestFailed(f"an event that is no part of a chat completion: {shown!r}", 200) from None
    if not streamed:
        return b"\n".join(other).decode("utf-8", "replace"), False
    ended = [choice["finish_reason"] for choice in choices.values()]
    if not done and not (ended and all(ended)):  # [DONE] may be missing
        raise RequestFailed("the reply broke off: the stream ended before its last token", 200)
    return json.dumps({**facts, "choices": [choices[index] for index in sorted(choices)]}), True


def _add(delta: dict[str, Any], message: dict[str, str]) -> bool:
    """Append the texts of a part to the message so far; whether the part holds any."""
    found = {name: text for name in TEXTS if (text := text_of(delta.get(name)))}
    for name, text in found.items():
        message[name] = message.get(name, "") + text
    return bool(found)
