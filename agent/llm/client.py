"""A client for one model on an OpenAI-compatible server: vLLM first, and every server that speaks the same protocol.

``ChatModel`` sends a conversation and returns a ``Reply``. It retries what time can mend (408, 409, 429, 5xx, broken
connections, answers that are no answers) with exponential backoff and jitter, and explains what time cannot mend: a
wrong key, a wrong model name, a prompt longer than the context window. What a server can do is found out, not assumed.

Everything that uses a model asks for a ``Chat``; ``agent.scripted.ScriptedModel`` is the other one.
"""

from __future__ import annotations

import contextlib
import difflib
import ipaddress
import json
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

from agent.errors import ContextOverflow, ModelMisconfigured, ModelUnavailable, UsageError
from agent.llm.api_keys import KEY_VARIABLES, key_of_environment, scrub, without_keys
from agent.llm.chat import Chat, Message, ModelInfo, Reply, estimate_tokens
from agent.llm.responses import NoAnswer, listed, one_line, overflow, read_completion, retry_after, window_of

if TYPE_CHECKING:
    from openai import APIStatusError, OpenAI

__all__ = ["KEY_VARIABLES", "Chat", "ChatModel", "Message", "ModelInfo", "Reply", "estimate_tokens", "normal_base_url",
           "scrub", "without_keys"]  # fmt: skip

CONNECT_PATIENCE = 10.0  # seconds for the first question to a server
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0  # seconds between attempts: doubled from one to the next
PROBE_WORD = "azure-17"  # no model says this unless a schema or a grammar makes it
_RETRIED = frozenset({408, 409, 429})


def normal_base_url(base_url: str) -> str:
    """``http://host:8000`` becomes ``http://host:8000/v1``; a path that is there is kept. Raises UsageError."""
    try:
        parts = urlsplit(base_url.strip())
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0  # reading port checks it
    except ValueError:
        good = False
    if not good:
        raise UsageError(
            f"--llm-base-url {base_url!r} is not the address of a server; it looks like http://127.0.0.1:8000/v1"
        )
    return urlunsplit((parts.scheme, parts.netloc, parts.path.rstrip("/") or "/v1", "", ""))


class ChatModel:
    """One model behind one base URL.

    Args:
        base_url: for example ``http://127.0.0.1:8000/v1``.
        model: its name on the server; None takes the only one that the server has.
        api_key: default from ``OVERNIGHT_LLM_API_KEY`` or ``OPENAI_API_KEY``.
        timeout: seconds for one request, thinking included.
        patience: seconds after which a request that keeps failing is given up, after ``max_attempts`` at the latest.
        connect_patience: the same for the first question to the server, where an error is rather a wrong address;
            None is ``CONNECT_PATIENCE``.
        sleep, clock, rng: for tests.
    """

    def __init__(
        self,
        base_url: str,
        model: str | None = None,
        api_key: str | None = None,
        timeout: float = 600.0,
        *,
        patience: float = 900.0,
        connect_patience: float | None = None,
        max_attempts: int = 12,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
    ) -> None:
        self.base_url = normal_base_url(base_url)
        self._key = (api_key or "").strip() or key_of_environment()
        if self._key and not (self._key.isascii() and self._key.isprintable()):
            raise UsageError(
                f"the API key holds characters that no HTTP header can carry; set {KEY_VARIABLES[0]} again"
            )
        self._model = model
        self._timeout = timeout
        self._patience, self._max_attempts = patience, max_attempts
        self._connect_patience = CONNECT_PATIENCE if connect_patience is None else connect_patience
        self._sleep, self._clock, self._rng = sleep, clock, rng or random.Random()
        self._client: OpenAI | None = None
        self._info: ModelInfo | None = None
        self._tokenizer = True  # until the server turns out to have no such endpoint

    def __repr__(self) -> str:
        return f"ChatModel({self.scrub(self.base_url)!r}, model={self._model!r})"

    def scrub(self, text: str) -> str:
        """``text`` without this model's key."""
        return scrub(text, self._key, urlsplit(self.base_url).password)

    # --- the three methods of Chat ----------------------------------------------------------------------------------

    def complete(
        self,
        messages: Sequence[Message],
        *,
        schema: Mapping[str, Any] | None = None,
        grammar: str | None = None,
        temperature: float | None = None,
        seed: int | None = None,
        max_tokens: int | None = None,
        n: int = 1,
    ) -> Reply:
        """Ask, as often as it takes to get an answer.

        ``schema`` (JSON schema) or ``grammar`` (EBNF that vLLM reads) is sent as given: see ``describe().structured``.

        Raises:
            ModelUnavailable: no answer within ``patience``; ModelMisconfigured where waiting cannot help.
            ContextOverflow: the conversation does not fit the model's window.
        """
        body: dict[str, Any] = {"model": self._name(), "messages": [dict(message) for message in messages]}
        options = {"temperature": temperature, "seed": seed, "max_tokens": max_tokens, "n": n if n > 1 else None}
        body |= {name: value for name, value in options.items() if value is not None}
        if schema is not None:
            body["response_format"] = {
                "type": "json_schema",
                "json_schema": {"name": "reply", "schema": dict(schema), "strict": True},
            }
        if grammar is not None:
            body["extra_body"] = {"structured_outputs": {"grammar": grammar}}
        return self._persist(lambda: read_completion(self._chat(body)), self._patience)

    def describe(self) -> ModelInfo:
        """Who answers: asked once, then remembered.

        Raises:
            ModelUnavailable: nobody answers.
            ModelMisconfigured: the key or the name of the model is wrong, or a name is needed.
        """
        if self._info is None:
            known = self._models(self._connect_patience)
            name = self._pick(known)
            entry = next((model for model in known if model.get("id") == name), {})
            window = window_of(entry)
            self._model = name
            server = str(entry.get("owned_by") or "unknown")[:40]
            self._info = ModelInfo(name, window, server, self._version(), structured=self._probe(window))
        return self._info

    def count_tokens(self, messages: Sequence[Message]) -> int:
        """Tokens of the conversation by the server's tokenizer, else estimated."""
        from openai import OpenAIError

        if self._tokenizer:
            body = {"model": self._name(), "messages": [dict(m) for m in messages], "add_generation_prompt": True}
            try:
                answer = self._open().post(self._root() + "/tokenize", cast_to=str, body=body)
                count = json.loads(answer)["count"]
                if isinstance(count, int) and not isinstance(count, bool) and count > 0:
                    return count
            except (OpenAIError, ValueError, KeyError, TypeError):
                pass
            self._tokenizer = False
        return estimate_tokens(messages)

    # --- requests ---------------------------------------------------------------------------------------------------

    def _open(self) -> OpenAI:
        if self._client is None:
            import openai

            # Its own retries are off: ours are counted, bounded and recorded.
            self._client = openai.OpenAI(
                api_key=self._key or "EMPTY", base_url=self.base_url, timeout=self._timeout, max_retries=0
            )
        return self._client

    def _chat(self, body: dict[str, Any]) -> str:
        return self._open().chat.completions.with_raw_response.create(**body).text

    def _root(self) -> str:
        return self.base_url.removesuffix("/v1")

    def _name(self) -> str:
        return self._model if self._model is not None else self.describe().id

    def _persist(self, request: Callable[[], Reply], patience: float) -> Reply:
        """Run ``request`` until it answers. Raises what ``complete`` raises."""
        from openai import APIConnectionError, APIError, APIStatusError

        began = self._clock()
        failures: list[str] = []
        while True:
            try:
                reply = request()
            except (NoAnswer, APIError) as error:
                if isinstance(error, APIStatusError):
                    self._explain(error)  # raises where waiting cannot help
                failures.append(self.scrub(one_line(error)))
                pause = self._pause(len(failures), error if isinstance(error, APIStatusError) else None)
                unreachable = isinstance(error, APIConnectionError)
            else:
                seconds = self._clock() - began
                return replace(reply, seconds=seconds, attempts=len(failures) + 1, failures=tuple(failures))
            waited = self._clock() - began
            if len(failures) >= self._max_attempts or waited + pause > patience:
                raise ModelUnavailable(self._given_up(failures, waited, pause, unreachable)) from None
            self._sleep(pause)

    def _pause(self, failed: int, error: APIStatusError | None) -> float:
        """Seconds before the next attempt: the server's wish if it has one, else 1, 2, 4 ... 60, less up to a half."""
        wish = retry_after(error) if error is not None else None
        if wish is not None:
            return wish + self._rng.uniform(0, 0.1 * wish + 0.1)
        return float(min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** (failed - 1)) * self._rng.uniform(0.5, 1.0))

    def _given_up(self, failures: list[str], waited: float, pause: float, unreachable: bool) -> str:
        tried = "1 attempt" if len(failures) == 1 else f"{len(failures)} attempts over {waited:.0f} s"
        what = f"the model server at {self.scrub(self.base_url)} gave no answer in {tried}: {failures[-1].rstrip('.')}."
        if unreachable:
            return what + " Start the server, or name another one with --llm-base-url."
        if pause > self._patience:
            return what + f" It asks to wait {pause:.0f} s."
        return what + " Look at the server's log, then `overnight resume`."

    def _explain(self, error: APIStatusError) -> None:
        """Raise what an error status means; return if it is worth another attempt."""
        status, where = int(error.status_code), self.scrub(self.base_url)
        said = self.scrub(one_line(error))
        if status in (401, 403):
            held = "refuses the API key" if self._key else "wants an API key"
            raise ModelMisconfigured(
                f"the model server at {where} {held} ({said}). Set the right one in {KEY_VARIABLES[0]}."
            ) from None
        too_long, window = overflow(said, error.code)
        if status in (400, 413, 422) and too_long:
            raise ContextOverflow(
                f"the request does not fit the context of {self._model} at {where}: {said.rstrip('.')}. "
                "Start the server with a larger --max-model-len, or use a model with a longer context.",
                window,
            ) from None
        if status == 404:
            self._pick(self._models(self._connect_patience))
            raise ModelMisconfigured(
                f"the model server at {where} knows {self._model!r} but no chat completions ({said}). "
                "Serve a chat model, or check --llm-base-url."
            ) from None
        if status == 429 and error.code == "insufficient_quota":
            raise ModelMisconfigured(f"the account at {where} has no quota left ({said}).") from None
        if status < 500 and status not in _RETRIED:
            raise ModelMisconfigured(f"the model server at {where} does not accept the request: {said}") from None

    # --- what the server is -----------------------------------------------------------------------------------------

    def _models(self, patience: float) -> list[dict[str, Any]]:
        """The entries of /models; an empty list from a server that has no such list."""
        from openai import NotFoundError

        answer: list[str] = []

        def ask() -> Reply:
            with contextlib.suppress(NotFoundError):
                answer.append(self._open().get("/models", cast_to=str))
            return Reply("")

        self._persist(ask, patience)
        try:
            data = json.loads(answer[-1])["data"]
            return [entry for entry in data if isinstance(entry, dict) and "id" in entry]
        except (IndexError, ValueError, KeyError, TypeError):
            return []

    def _pick(self, known: list[dict[str, Any]]) -> str:
        names = [str(model["id"]) for model in known]
        where = self.scrub(self.base_url)
        if not names and self._model is None:
            raise ModelMisconfigured(
                f"{where} does not list its models. Is it the address of an OpenAI-compatible server? "
                "It usually ends in /v1 (--llm-base-url); if it is right, name the model with --llm-model."
            )
        if self._model is None:
            if len(names) > 1:
                raise ModelMisconfigured(f"{where} serves {listed(names)}: choose one with --llm-model")
            return names[0]
        if names and self._model not in names:
            near = difflib.get_close_matches(self._model, names, n=1)
            hint = f" Did you mean {near[0]}?" if near else ""
            raise ModelMisconfigured(
                f"{where} has no model {self._model!r}; it has {listed(names)}.{hint} Set --llm-model."
            )
        return self._model

    def _version(self) -> str:
        from openai import OpenAIError

        try:
            return str(json.loads(self._open().get(self._root() + "/version", cast_to=str))["version"])[:40]
        except (OpenAIError, ValueError, KeyError, TypeError):
            return ""

    def _probe(self, window: int | None) -> frozenset[str]:
        """Which forms the server enforces: ask for one word, demand another, and see which one comes."""
        question = [{"role": "user", "content": "Answer with the word yes."}]
        properties = {"answer": {"type": "string", "enum": [PROBE_WORD]}}
        schema = {"type": "object", "properties": properties, "required": ["answer"], "additionalProperties": False}
        # Room to think first: with a reasoning parser the form binds only what follows the reasoning.
        room = min(2048, (window or 8192) // 2)
        found = set()
        for form, asked in (("schema", {"schema": schema}), ("grammar", {"grammar": f'root ::= "{PROBE_WORD}"'})):
            try:
                text = self.complete(question, temperature=0.0, max_tokens=room, **asked).text.strip()
                said = json.loads(text)["answer"] if form == "schema" else text
            except (ModelMisconfigured, ContextOverflow, ValueError, KeyError, TypeError):
                continue
            if said == PROBE_WORD:
                found.add(form)
        return frozenset(found)


def is_loopback(base_url: str) -> bool:
    """Whether an address is one of this machine's own loopback."""
    try:
        host = urlsplit(base_url).hostname or ""
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
