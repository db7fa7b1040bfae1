"""A chat model that answers from a script."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Unpack

from agent.errors import ModelUnavailable
from agent.llm.chat import Message, ModelInfo, Options, Reply, estimate_tokens

Line = str | Reply | Exception | Callable[[Sequence[Message]], str]


@dataclass(frozen=True)
class Request:
    """The arguments of one call of ``complete``; see ``agent.llm.chat.Options``."""

    messages: tuple[Message, ...]
    schema: Mapping[str, Any] | None = None
    grammar: str | None = None
    temperature: float | None = None
    seed: int | None = None
    frequency_penalty: float | None = None
    max_tokens: int | None = None
    n: int = 1


class ScriptedModel:
    """Answers with the lines of a script in order; after the last line it raises ModelUnavailable.

    Args:
        lines: texts, whole replies, exceptions to raise, or functions from a conversation to a text.
        model: its name.
        max_model_len: context window in tokens.
        structured: the forms that it claims to enforce.

    Attributes:
        requests: every request so far.
    """

    def __init__(
        self,
        lines: Iterable[Line],
        *,
        model: str = "scripted",
        max_model_len: int | None = 131072,
        structured: Iterable[str] = (),
    ) -> None:
        self._lines = iter(lines)
        self._info = ModelInfo(model, max_model_len, "scripted", "", frozenset(structured))
        self.requests: list[Request] = []

    def complete(self, messages: Sequence[Message], **options: Unpack[Options]) -> Reply:
        self.requests.append(Request(tuple(messages), **options))
        line = next(self._lines, None)
        if line is None:
            raise ModelUnavailable(f"the script has no reply for request {len(self.requests)}")
        if isinstance(line, Exception):
            raise line
        if isinstance(line, Reply):
            return line if line.model else replace(line, model=self._info.id)
        text = line if isinstance(line, str) else line(messages)
        tokens_out = estimate_tokens([{"role": "assistant", "content": text}])
        return Reply(
            text, model=self._info.id, tokens_in=self.count_tokens(messages), tokens_out=tokens_out, choices=(text,)
        )

    def describe(self) -> ModelInfo:
        return self._info

    def count_tokens(self, messages: Sequence[Message]) -> int:
        return estimate_tokens(messages)
