"""A client for one model on an OpenAI-compatible server such as vLLM, llama.cpp, Ollama or LM Studio.

Transient failures are repeated with backoff: connection errors, malformed replies and the HTTP statuses 408, 409, 425,
429 and 5xx. Other failures raise at once, with the server's reason. Context window, tokenizer, structured outputs and
optional parameters are found by asking the server, not configured.
"""

from __future__ import annotations

import ipaddress
import json
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, TypeVar, Unpack
from urllib.parse import urlsplit, urlunsplit

from agent.errors import ContextOverflow, ModelMisconfigured, UsageError
from agent.llm import explanations
from agent.llm.api_keys import KEY_VARIABLES, key_of_environment
from agent.llm.chat import Message, ModelInfo, Options, Reply, estimate_tokens, with_estimated_usage
from agent.llm.connection import Connection, RequestFailed
from agent.llm.parameters import Parameters
from agent.llm.responses import enforced_forms, read_completion, read_models, window_of
from agent.llm.retries import Retries
from agent.llm.streaming import STREAM, completion

CONNECT_PATIENCE = 10.0  # seconds of retries for the first request to a server

T = TypeVar("T")
log = logging.getLogger("overnight.llm")


def normal_base_url(base_url: str) -> str:
    """``http://host:8000`` becomes ``http://host:8000/v1``; an existing path stays. Raises UsageError."""
    try:
        parts = urlsplit(base_url.strip())
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0  # reading port checks it
    except ValueError:
        good = False
    if not good:
        raise UsageError(f"--llm-base-url {base_url!r} is no server address; an example is http://127.0.0.1:8000/v1")
    return urlunsplit((parts.scheme, parts.netloc, parts.path.rstrip("/") or "/v1", "", ""))


def is_loopback(base_url: str) -> bool:
    """Whether an address is on the loopback of this machine."""
    try:
        host = urlsplit(base_url).hostname or ""
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class ChatModel:
    """One model behind one base URL.

    Args:
        base_url: for example ``http://127.0.0.1:8000/v1``.
        model: its name on the server; None takes the only model of the server.
        timeout: seconds until the first token of a reply, or until the end of a reply that is not streamed.
        token_timeout: seconds between two tokens of a reply, at most ``timeout``.
        patience: seconds of retries for one request; for the list of models at most ``CONNECT_PATIENCE``.
        retries: number of attempts of one request, and the pauses between them.
    """

    def __init__(
        self,
        base_url: str,
        model: str | None = None,
        timeout: float = 600.0,
        token_timeout: float = 120.0,
        *,
        patience: float = 900.0,
        retries: Retries | None = None,
    ) -> None:
        self.base_url = normal_base_url(base_url)
        self._key = key_of_environment()
        if self._key and not (self._key.isascii() and self._key.isprintable()):
            raise UsageError(f"the API key has characters that no HTTP header can carry; set {KEY_VARIABLES[0]} again")
        self._model = model
        self._timeout, self._token_timeout = timeout, min(timeout, token_timeout)
        self._connection = Connection(self.base_url, self._key, timeout)
        self._retries = retries or Retries()
        self._patience = patience
        self._requests = Parameters(self._post, lambda text: log.warning("%s %s", self._connection, text))
        self._info: ModelInfo | None = None
        self._has_tokenizer = True  # until a request to /tokenize fails

    def complete(self, messages: Sequence[Message], **options: Unpack[Options]) -> Reply:
        """Send a conversation and return the reply.

        Raises:
            ModelUnavailable: no reply within ``patience``.
            ModelMisconfigured: the server refuses the request, and waiting does not help.
            ContextOverflow: the conversation does not fit the context window.
        """
        try:
            reply = self._ask(messages, **options)
        except RequestFailed as error:
            raise self._refused(error) from None
        return reply if reply.tokens_in else with_estimated_usage(reply, messages)

    def describe(self) -> ModelInfo:
        """The model and its server, asked once and then remembered.

        Raises:
            ModelUnavailable: no answer.
            ModelMisconfigured: the API key or the name of the model is wrong, or the name is missing.
        """
        if self._info is None:
            known = self._models()
            names = [str(model["id"]) for model in known]
            if self._model is None:
                if len(names) != 1:
                    raise explanations.no_choice(str(self._connection), names)
                self._model = names[0]
            elif names and self._model not in names:
                log.warning("%s", explanations.unlisted(str(self._connection), self._model, names))
            entry = next((model for model in known if model["id"] == self._model), {})
            window = window_of(entry)
            try:
                forms = enforced_forms(self._ask, window)
            except RequestFailed as error:
                raise self._refused(error) from None
            server = str(entry.get("owned_by") or "unknown")[:40]
            self._info = ModelInfo(self._model, window, server, self._connection.version(), forms)
        return self._info

    def count_tokens(self, messages: Sequence[Message]) -> int:
        """Tokens of the conversation by the server's tokenizer (vLLM's /tokenize), else an estimate."""
        if self._has_tokenizer:
            with suppress(RequestFailed, ValueError, KeyError, TypeError):
                body = {**self._body(messages), "add_generation_prompt": True}
                count = json.loads(self._connection.post(self._connection.root + "/tokenize", body))["count"]
                if isinstance(count, int) and count > 0:
                    return count
            self._has_tokenizer = False
        return estimate_tokens(messages)

    def _body(self, messages: Sequence[Message], **options: Unpack[Options]) -> dict[str, Any]:
        model = self._model if self._model is not None else self.describe().id
        body: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
        if (schema := body.pop("schema", None)) is not None:
            form = {"name": "reply", "schema": dict(schema), "strict": True}
            body["response_format"] = {"type": "json_schema", "json_schema": form}
        if grammar := body.pop("grammar", None):
            body["structured_outputs"] = {"grammar": grammar}
        return {"model": model, "messages": [dict(message) for message in messages], **body}

    def _ask(self, messages: Sequence[Message], needed: str = "", **options: Unpack[Options]) -> Reply:
        """Send a conversation, with retries. ``needed``: a parameter that the request cannot do without."""
        body = {**self._body(messages, **options), **STREAM}
        began, failures = self._retries.clock(), list[str]()
        reply = self._call(lambda: self._requests.send(body, needed), self._patience, failures)
        seconds = self._retries.clock() - began
        return replace(reply, seconds=seconds, attempts=len(failures) + 1, failures=tuple(failures))

    def _post(self, body: dict[str, Any]) -> Reply:
        answer, streamed = completion(self._connection, body, self._timeout, self._token_timeout)
        reply = read_completion(answer)
        if body.get("stream") and not streamed:
            self._requests.leave_out("stream")
            log.warning("%s does not stream: --llm-timeout bounds the whole of each reply", self._connection)
        return reply

    def _call(self, request: Callable[[], T], patience: float, failures: list[str] | None = None) -> T:
        """``request`` with retries. Raises RequestFailed if waiting does not help, else ModelUnavailable."""
        failures = [] if failures is None else failures
        began = self._retries.clock()
        try:
            return self._retries.call(request, patience, failures)
        except RequestFailed as error:
            if not error.transient:
                raise
            bypass = urlsplit(self.base_url).hostname or "" if self._connection.proxy else ""
            waited = self._retries.clock() - began
            raise explanations.unavailable(str(self._connection), error, len(failures), waited, bypass) from None

    def _models(self) -> list[dict[str, Any]]:
        """The entries of /models; empty if the server has no list, or refuses it and the user has named the model."""
        try:
            patience = min(CONNECT_PATIENCE, self._patience)
            return read_models(self._call(lambda: self._connection.get("/models"), patience))
        except RequestFailed as error:
            if error.status == 404:
                return []
            if self._model is None or error.status == 401:
                raise self._refused(error) from None
            log.warning("%s does not list its models (%s); --llm-model is used", self._connection, error)
            return []

    def _refused(self, error: RequestFailed) -> ModelMisconfigured | ContextOverflow:
        names = [str(model["id"]) for model in self._models()] if error.status == 404 else []
        return explanations.refused(str(self._connection), error, self._model, bool(self._key), names)
