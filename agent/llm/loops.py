"""Detects that a model repeats itself, inside one reply and from reply to reply."""

from __future__ import annotations

import hashlib
import re

from agent.llm.chat import Reply

NGRAM = 8  # tokens
TAIL = 2000  # tokens at the end of a reply that are looked at
SHORTEST = 120  # tokens; shorter replies are no loop
MOST_DISTINCT = 0.34  # share of distinct n-grams below which a reply is a loop: each occurs three times on average
_TOKEN = re.compile(r"\w+|[^\w\s]")


def repeats_itself(reply: Reply) -> bool:
    """Whether the end of a reply, reasoning included, is a loop: most of its n-grams occur again and again."""
    found = _TOKEN.findall(f"{reply.reasoning}\n{reply.text}")[-TAIL:]
    tokens = ["0" if token.isdigit() else token for token in found]  # small models count: step 1, step 2, step 3
    grams = [tuple(tokens[at : at + NGRAM]) for at in range(len(tokens) - NGRAM + 1)]
    return len(tokens) >= SHORTEST and len(set(grams)) < MOST_DISTINCT * len(grams)


def hash_of(reply: Reply) -> str:
    """A hash of the text without white space: equal for equal replies."""
    text = "".join(reply.text.split())
    return hashlib.blake2b(text.encode(errors="backslashreplace"), digest_size=8).hexdigest()
