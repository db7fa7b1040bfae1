"""A model that answers from a script: for the demonstration, for tests, and to replay what a model once said."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from agent.errors import ModelUnavailable, UsageError
from agent.llm.chat import Message, ModelInfo, Reply, estimate_tokens

Line = str | Reply | Exception | Callable[[Sequence[Message]], str]


@dataclass(frozen=True)
class Request:
    """What ``complete`` was called with."""

    messages: tuple[Message, ...]
    schema: Mapping[str, Any] | None = None
    grammar: str | None = None
    temperature: float | None = None
    seed: int | None = None
    max_tokens: int | None = None
    n: int = 1


class ScriptedModel:
    """Says its lines in order: texts, whole replies, exceptions to raise, functions of the conversation.

    ``requests`` keeps every conversation. After the last line it is unavailable, as a server that went away.
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

    @classmethod
    def from_directory(cls, directory: Path) -> ScriptedModel:
        """One reply per file ``*.md``, in the order of their names. Raises UsageError if there is none."""
        files = sorted(directory.glob("*.md"))
        if not files:
            raise UsageError(f"{directory} holds no replies; write one into each of 01.md, 02.md, ...")
        return cls([path.read_text(encoding="utf-8") for path in files])

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
        request = Request(tuple(messages), schema, grammar, temperature, seed, max_tokens, n)
        self.requests.append(request)
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
