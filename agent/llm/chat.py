"""The protocol of a chat model, its request options and its replies."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypedDict, Unpack

Message = Mapping[str, str]  # {"role": "system" | "user" | "assistant", "content": text}

BYTES_PER_TOKEN = 3.5  # of source code and English; low, so that estimates are rather too high


class Options(TypedDict, total=False):
    """Options of one request; an option that is left out or None is not sent."""

    schema: Mapping[str, Any] | None  # JSON schema of the answer
    grammar: str | None  # EBNF grammar of the answer, as vLLM reads it
    temperature: float | None
    seed: int | None
    frequency_penalty: float | None  # lowers the probability of tokens that occurred, -2 to 2
    max_tokens: int | None  # of the answer, reasoning included
    n: int  # number of choices, default 1


@dataclass(frozen=True)
class Reply:
    """A reply of a model. ``text`` is the first choice that is not empty; ``reasoning`` is kept apart from it."""

    text: str
    reasoning: str = ""
    finish_reason: str = "stop"  # stop, length (cut off at max_tokens), content_filter, ...
    model: str = ""
    tokens_in: int = 0
    tokens_out: int = 0
    seconds: float = 0.0  # all attempts and the pauses between them
    attempts: int = 1
    choices: tuple[str, ...] = ()
    refusal: str = ""
    failures: tuple[str, ...] = ()  # one line per failed attempt
    estimated: bool = False  # the server reports no usage: the tokens are estimated from the texts


@dataclass(frozen=True)
class ModelInfo:
    """A model and its server. ``structured`` holds ``schema`` and ``grammar`` if a probe showed them enforced."""

    id: str
    max_model_len: int | None = None  # tokens of prompt and answer together; None if unknown
    server: str = "unknown"  # name of the server software: vllm, llamacpp, ...
    version: str = ""
    structured: frozenset[str] = field(default_factory=frozenset)


class Chat(Protocol):
    """A chat model."""

    def complete(self, messages: Sequence[Message], **options: Unpack[Options]) -> Reply: ...

    def describe(self) -> ModelInfo: ...

    def count_tokens(self, messages: Sequence[Message]) -> int: ...


def estimate_tokens(messages: Sequence[Message]) -> int:
    """Tokens of a conversation, estimated from its bytes."""
    return sum(int(len(message["content"].encode()) / BYTES_PER_TOKEN) + 8 for message in messages)


def with_estimated_usage(reply: Reply, messages: Sequence[Message]) -> Reply:
    """The reply to ``messages`` with numbers of tokens estimated from its texts."""
    written = [{"content": text} for text in (reply.reasoning, *(reply.choices or (reply.text,))) if text]
    tokens_in, tokens_out = estimate_tokens(messages), estimate_tokens(written)
    return replace(reply, tokens_in=tokens_in, tokens_out=tokens_out, estimated=True)


def usage_of(replies: Sequence[Reply]) -> dict[str, float]:
    """Sums over replies for ``Proposal.usage``. ``estimated``: how many have estimated tokens, if any do."""
    estimated = sum(reply.estimated for reply in replies)
    return {
        "calls": len(replies),
        "requests": sum(reply.attempts for reply in replies),
        "tokens_in": sum(reply.tokens_in for reply in replies),
        "tokens_out": sum(reply.tokens_out for reply in replies),
        "seconds": round(sum(reply.seconds for reply in replies), 3),
        **({"estimated": estimated} if estimated else {}),
    }


class Answers:
    """Wraps a function from a conversation to the text of an answer as a chat model."""

    def __init__(self, function: Callable[[Sequence[Message]], str]) -> None:
        self._function = function

    def complete(self, messages: Sequence[Message], *, n: int = 1, **_: object) -> Reply:
        texts = [self._function(messages) for _ in range(n)]
        choices = tuple(text if isinstance(text, str) else "" for text in texts)
        return Reply(choices[0], model="function", choices=choices)

    def describe(self) -> ModelInfo:
        return ModelInfo("function", server="function")

    def count_tokens(self, messages: Sequence[Message]) -> int:
        return estimate_tokens(messages)
