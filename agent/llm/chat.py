"""What it means to talk to a model: the protocol, a reply, and who answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

Message = Mapping[str, str]  # {"role": "system" | "user" | "assistant", "content": text}

BYTES_PER_TOKEN = 3.5  # of source code and English, on the careful side


@dataclass(frozen=True)
class Reply:
    """What came back. ``text`` is the first choice that is not empty; ``reasoning`` never contains it."""

    text: str
    reasoning: str = ""
    finish_reason: str = "stop"  # stop, length (cut off at max_tokens), content_filter, ...
    model: str = ""
    tokens_in: int = 0
    tokens_out: int = 0
    seconds: float = 0.0  # of all attempts and the pauses between them
    attempts: int = 1
    choices: tuple[str, ...] = ()
    refusal: str = ""
    failures: tuple[str, ...] = ()  # one line for each attempt that failed


@dataclass(frozen=True)
class ModelInfo:
    """A model and its server. ``structured`` holds ``schema`` and ``grammar`` where a probe saw them enforced."""

    id: str
    max_model_len: int | None = None  # tokens of prompt and answer together; None if the server does not tell
    server: str = "unknown"  # vllm, llamacpp, ..., as the server says
    version: str = ""
    structured: frozenset[str] = field(default_factory=frozenset)


class Chat(Protocol):
    """A model that can be talked to."""

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
    ) -> Reply: ...

    def describe(self) -> ModelInfo: ...

    def count_tokens(self, messages: Sequence[Message]) -> int: ...


def estimate_tokens(messages: Sequence[Message]) -> int:
    """Tokens of a conversation by its bytes, for servers without a tokenizer endpoint."""
    return sum(int(len(message["content"].encode()) / BYTES_PER_TOKEN) + 8 for message in messages)


class Answers:
    """A function from a conversation to the text of an answer, as a model. No text is an empty answer."""

    def __init__(self, function: Callable[[Sequence[Message]], str]) -> None:
        self._function = function

    def complete(self, messages: Sequence[Message], *, n: int = 1, **_: object) -> Reply:
        said = [self._function(messages) for _ in range(n)]
        choices = tuple(text if isinstance(text, str) else "" for text in said)
        return Reply(choices[0], model="function", choices=choices)

    def describe(self) -> ModelInfo:
        return ModelInfo("function", server="function")

    def count_tokens(self, messages: Sequence[Message]) -> int:
        return estimate_tokens(messages)
