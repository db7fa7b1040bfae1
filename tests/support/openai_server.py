"""A scripted OpenAI-compatible server in the form of vLLM, with scripted failures.

In a test:

    with OpenAIServer(["first reply", Answer(status=503, retry_after="1"), Answer(finish_reason="length")]) as server:
        ChatModel(server.base_url)

As a program: ``python tests/support/openai_server.py --port-file F --replies DIR``. DIR holds ``*.md`` (the text of a
reply) and ``*.json`` (the fields of an Answer), sent in the order of their names. The server writes its port to F.

The client's probe for structured outputs and the canary of a sleeping server take no reply from the script.
"""

from __future__ import annotations

import argparse
import json
import re
import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

PROBE = "Answer with the word yes."
CANARY = "Count from one to twenty"


@dataclass(frozen=True)
class Answer:
    """The answer to one chat completion. A ``status`` other than 200 sends ``raw``, else an error in vLLM's form."""

    text: str | None = ""
    status: int = 200
    message: str = "something went wrong"
    code: str | int | None = None
    retry_after: str | None = None
    hang: bool = False  # never answer
    refuse: bool = False  # close the connection without an answer
    break_after: int | None = None  # close the connection after so many bytes of the body
    raw: str | None = None  # the whole body
    content_type: str = "application/json"
    finish_reason: str = "stop"
    reasoning: str | None = None
    refusal: str | None = None
    choices: tuple[str, ...] = ()
    usage: bool = True
    events: tuple[str | float, ...] = ()  # the stream in place of the reply: lines as sent, and seconds of silence


@dataclass
class Seen:
    """A request to the server."""

    path: str
    headers: Mapping[str, str]
    body: dict[str, Any] = field(default_factory=dict)
    asleep: bool = False  # state of the server when the request came


class OpenAIServer:
    """Listens on a free port of the loopback between ``__enter__`` and ``__exit__``.

    Args:
        replies: answers in order; ``at_end`` follows the last one.
        models: names and context windows in tokens. A longer prompt gets vLLM's error.
        listing: the answer to /models in place of ``models``.
        refuses: request parameters and the answers to requests that hold them.
        structured: the forms that the probe finds enforced: ``schema``, ``grammar``.
        sleeps: adds vLLM's sleep mode. /sleep and /wake_up answer with the status ``moving`` and need 200 to work.
        streams: whether replies are streamed where requests ask for it; otherwise ``stream`` is ignored.
    """

    def __init__(
        self,
        replies: Iterable[str | Answer] = (),
        *,
        models: Mapping[str, int | None] | None = None,
        key: str | None = None,
        owned_by: str = "vllm",
        version: str | None = "0.32.0",
        tokenizer: bool = True,
        structured: Iterable[str] = (),
        at_end: Answer | None = None,
        port: int = 0,
        sleeps: bool = False,
        listing: Answer | None = None,
        refuses: Mapping[str, Answer] | None = None,
        streams: bool = True,
    ) -> None:
        self.streams = streams
        self.sleeps, self.asleep, self.moving = sleeps, False, 200
        self.canary = Answer("one, two, three")  # the answer to the canary, and the one after a wake
        self.woken: Answer | None = None
        self.next_canary = lambda: self.canary
        self.at_sleep: Callable[[], object] = lambda: None  # called when the server falls asleep
        self.replies = [Answer(reply) if isinstance(reply, str) else reply for reply in replies]
        self.models = dict(models if models is not None else {"tiny": 32768})
        self.key, self.owned_by, self.version, self.tokenizer = key, owned_by, version, tokenizer
        self.structured, self.listing, self.refuses = frozenset(structured), listing, dict(refuses or {})
        self.at_end = at_end or Answer(status=410, message="the script is over")
        self.seen: list[Seen] = []
        self.stopped = threading.Event()
        self.answered = threading.Event()  # the first answer is sent
        self.left = threading.Event()  # a client has closed its connection during a stream
        self._lock = threading.Lock()
        self._http = _Server(("127.0.0.1", port), _Handler)
        self._http.owner = self

    @property
    def port(self) -> int:
        return int(self._http.server_address[1])

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def chats(self) -> list[dict[str, Any]]:
        """Bodies of the requests for chat completions, without probes and canaries."""
        bodies = [seen.body for seen in self.seen if seen.path.endswith("/chat/completions")]
        return [body for body in bodies if not is_probe(body) and not is_canary(body)]

    def __enter__(self) -> OpenAIServer:
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stopped.set()
        self._http.shutdown()
        self._http.server_close()

    def serve_forever(self) -> None:
        self._http.serve_forever()

    def next_answer(self) -> Answer:
        with self._lock:
            return self.replies.pop(0) if self.replies else self.at_end

    def note(self, seen: Seen) -> None:
        with self._lock:
            self.seen.append(seen)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    owner: OpenAIServer


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        owner = self.server.owner
        owner.note(Seen(self.path, dict(self.headers), asleep=owner.asleep))
        if not self._allowed():
            return
        if self.path == "/v1/models" and owner.listing:
            self._send(owner.listing.status, owner.listing.raw or "")
        elif self.path == "/v1/models":
            self._send(200, {"object": "list", "data": [self._model(n, w) for n, w in owner.models.items()]})
        elif self.path == "/version" and owner.version:
            self._send(200, {"version": owner.version})
        elif self.path == "/health":
            self._send(200, {})
        elif self.path.startswith("/is_sleeping") and owner.sleeps:
            self._send(200, {"is_sleeping": owner.asleep})
        else:
            self._error(404, "Not Found")

    def do_POST(self) -> None:
        owner = self.server.owner
        body = json.loads(self.rfile.read(int(self.headers.get("content-length") or 0)) or b"{}")
        owner.note(Seen(self.path, dict(self.headers), body, owner.asleep))
        if not self._allowed():
            return
        if self.path == "/tokenize" and owner.tokenizer:
            window = owner.models.get(body.get("model", ""))
            self._send(200, {"count": count(body), "max_model_len": window, "tokens": []})
        elif self.path == "/v1/chat/completions":
            self._chat(body)
        elif self.path in ("/sleep?level=1", "/wake_up") and owner.sleeps:
            if owner.moving == 200:
                owner.asleep = self.path != "/wake_up"
                if owner.asleep:
                    owner.at_sleep()
                elif owner.woken:
                    owner.canary = owner.woken
            self._send(owner.moving, {})
        else:
            self._error(404, "Not Found")

    # chat

    def _chat(self, body: dict[str, Any]) -> None:
        owner = self.server.owner
        name = body.get("model", "")
        if name not in owner.models:
            self._error(404, f"The model `{name}` does not exist.", kind="NotFoundError")
        elif (problem := overflow(body, owner.models[name])) is not None:
            self._error(400, problem, kind="BadRequestError")
        elif refused := next((name for name in owner.refuses if name in body), None):
            self._answer(body, owner.refuses[refused])
        elif is_canary(body):
            self._answer(body, owner.next_canary())
        elif is_probe(body):
            self._completion(body, Answer(probed(body, owner.structured)))
        else:
            self._answer(body, owner.next_answer())

    def _answer(self, body: dict[str, Any], answer: Answer) -> None:
        if answer.hang:
            self.server.owner.stopped.wait(120)
            self.close_connection = True
        elif answer.refuse:
            self._drop()
        elif answer.status != 200 and answer.raw is not None:
            self._send(answer.status, answer.raw)
        elif answer.status != 200:
            headers = {"Retry-After": answer.retry_after} if answer.retry_after is not None else {}
            self._error(answer.status, answer.message, headers=headers, code=answer.code)
        else:
            self._completion(body, answer)

    def _completion(self, body: dict[str, Any], answer: Answer) -> None:
        texts: tuple[str | None, ...] = answer.choices or (answer.text,) * int(body.get("n") or 1)
        written = sum(len(text or "") // 4 for text in texts)
        usage = {"prompt_tokens": count(body), "completion_tokens": written, "total_tokens": count(body) + written}
        name = str(body["model"])
        if body.get("stream") and self.server.owner.streams and answer.raw is None:
            lines = answer.events or streamed(answer, texts, usage if "stream_options" in body else None, name)
            self._stream(lines, answer.break_after)
            return
        data = {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1,
            "model": body["model"],
            "choices": [
                {
                    "index": index,
                    "finish_reason": answer.finish_reason,
                    "logprobs": None,
                    "message": {
                        "role": "assistant",
                        "content": text,
                        "refusal": answer.refusal,
                        "reasoning_content": answer.reasoning,
                        "tool_calls": [],
                    },
                }
                for index, text in enumerate(texts)
            ],
            "usage": usage if answer.usage else None,
        }
        payload = (answer.raw if answer.raw is not None else json.dumps(data)).encode()
        self.send_response(200)
        self.send_header("Content-Type", answer.content_type)
        self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        if answer.break_after is not None:
            self.wfile.write(payload[: answer.break_after])
            self._drop()
        else:
            self.wfile.write(payload)

    def _stream(self, lines: Iterable[str | float], break_after: int | None) -> None:
        """Send lines in chunks; after ``break_after`` bytes the connection breaks."""
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        left = break_after
        for line in lines:
            if not isinstance(line, str):
                self.wfile.flush()
                self.server.owner.stopped.wait(line)
                continue
            data = f"{line}\n\n".encode()
            if left is not None and left < len(data):
                self._drop()
                return
            left = None if left is None else left - len(data)
            try:
                self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
            except OSError:  # the client has left
                self.server.owner.left.set()
                self.close_connection = True
                return
        self.wfile.write(b"0\r\n\r\n")

    # parts

    def _allowed(self) -> bool:
        key = self.server.owner.key
        given = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if key is None or given == key or not self.path.startswith("/v1/"):
            return True
        self._error(401, f"Incorrect API key provided: {given}", code="invalid_api_key")
        return False

    def _model(self, name: str, window: int | None) -> dict[str, Any]:
        entry = {"id": name, "object": "model", "created": 1, "owned_by": self.server.owner.owned_by}
        return entry | ({"max_model_len": window} if window else {})

    def _error(
        self,
        status: int,
        message: str,
        *,
        kind: str = "Error",
        headers: Mapping[str, str] | None = None,
        code: str | int | None = None,
    ) -> None:
        error = {"message": message, "type": kind, "param": None, "code": code if code is not None else status}
        self._send(status, {"error": error}, headers or {})

    def _send(self, status: int, data: object, headers: Mapping[str, str] | None = None) -> None:
        payload = (data if isinstance(data, str) else json.dumps(data)).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)
        self.server.owner.answered.set()

    def _drop(self) -> None:
        self.wfile.flush()
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)


def streamed(answer: Answer, texts: Iterable[str | None], usage: Mapping[str, int] | None, model: str) -> Iterator[str]:
    """The events of a reply in the form of vLLM."""
    for index, text in enumerate(texts):
        yield event({"role": "assistant", "content": ""}, index, model=model)
        for name, value in (("reasoning_content", answer.reasoning), ("content", text), ("refusal", answer.refusal)):
            for start in range(0, len(value or ""), 7):
                yield event({name: (value or "")[start : start + 7]}, index, model=model)
        yield event({}, index, answer.finish_reason, model)
    if usage and answer.usage:
        yield "data: " + json.dumps({"model": model, "choices": [], "usage": usage})
    yield "data: [DONE]"


def event(delta: Mapping[str, str | None], index: int = 0, finish: str | None = None, model: str = "tiny") -> str:
    """One event of a stream."""
    choice = {"index": index, "delta": delta, "finish_reason": finish}
    return "data: " + json.dumps({"model": model, "choices": [choice]}, ensure_ascii=False)


def is_canary(body: Mapping[str, Any]) -> bool:
    return any(str(message.get("content")).startswith(CANARY) for message in body.get("messages", ()))


def is_probe(body: Mapping[str, Any]) -> bool:
    return any(message.get("content") == PROBE for message in body.get("messages", ()))


def probed(body: Mapping[str, Any], structured: frozenset[str]) -> str:
    """The answer to the probe: the word of the form if the form is enforced, else a free answer."""
    if "response_format" in body and "schema" in structured:
        properties = body["response_format"]["json_schema"]["schema"]["properties"]
        return json.dumps({name: value["enum"][0] for name, value in properties.items()})
    if "structured_outputs" in body and "grammar" in structured:
        return re.findall(r'"([^"]*)"', body["structured_outputs"]["grammar"])[0]
    return "yes"


def count(body: Mapping[str, Any]) -> int:
    """Tokens of the conversation: four characters each, and four tokens per message."""
    return sum(4 + len(message["content"]) // 4 for message in body.get("messages", ()))


def overflow(body: Mapping[str, Any], window: int | None) -> str | None:
    """vLLM's error if prompt and answer exceed the window."""
    prompt, answer = count(body), int(body.get("max_tokens") or 0)
    if window is None or prompt + max(answer, 1) <= window:
        return None
    if prompt < window:
        return (
            f"'max_tokens' or 'max_completion_tokens' is too large: {answer}. This model's maximum context length is "
            f"{window} tokens and your request has {prompt} input tokens ({answer} > {window} - {prompt})."
        )
    return (
        f"This model's maximum context length is {window} tokens. However, your request has {prompt} input tokens. "
        "Please reduce the length of the input messages."
    )


def read_replies(directory: Path) -> list[str | Answer]:
    replies: list[str | Answer] = []
    for path in sorted(directory.iterdir()):
        if path.suffix == ".json":
            replies.append(Answer(**json.loads(path.read_text(encoding="utf-8"))))
        elif path.suffix == ".md":
            replies.append(path.read_text(encoding="utf-8"))
    return replies


def main() -> None:
    parser = argparse.ArgumentParser(description="a scripted OpenAI-compatible server")
    parser.add_argument("--port-file", type=Path, required=True)
    parser.add_argument("--replies", type=Path, required=True)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--max-model-len", type=int, default=131072)
    parser.add_argument("--key")
    parser.add_argument("--structured", default="", help="enforced forms, separated by commas: schema,grammar")
    given = parser.parse_args()
    server = OpenAIServer(
        read_replies(given.replies),
        models={given.model: given.max_model_len},
        key=given.key,
        structured=[form for form in given.structured.split(",") if form],
        port=given.port,
    )
    waiting = given.port_file.with_suffix(".part")
    waiting.write_text(f"{server.port}\n")
    waiting.replace(given.port_file)  # a reader never sees half of the file
    server.serve_forever()


if __name__ == "__main__":
    main()
