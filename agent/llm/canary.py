"""A fixed question whose greedy answer tells whether a model server still is the one that came up."""

from __future__ import annotations

from agent.llm.chat import Chat, Message

QUESTION: list[Message] = [{"role": "user", "content": "Count from one to twenty in English words, with commas."}]
TOKENS = 16  # of the answer: later ones may differ by rounding


def ask(chat: Chat) -> str:
    """The first tokens of the answer, reasoning included. Raises ModelUnavailable."""
    reply = chat.complete(QUESTION, temperature=0.0, max_tokens=TOKENS)
    return reply.reasoning + reply.text


def record(chat: Chat) -> str | None:
    """The answer to compare with; None if two answers differ. Raises ModelUnavailable."""
    first = ask(chat)
    return first if ask(chat) == first else None
