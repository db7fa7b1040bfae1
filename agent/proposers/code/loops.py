"""When the answers of a model count as a loop: it repeats itself, or earlier trials had the same answers."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

from agent.llm.chat import Reply
from agent.patch.apply import form_of
from agent.proposers.protocol import Context
from agent.types import Answer

LOOK_BACK = 3  # earlier trials in which equal replies are looked for
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


def answer_of(reply: Reply, applied: bool) -> Answer:
    """The record of one reply. White space does not change its hash."""
    text = "".join(reply.text.split()).encode(errors="backslashreplace")
    cut = "length" if reply.finish_reason == "length" else ""
    problem = "loop" if repeats_itself(reply) else cut
    return Answer(form_of(reply.text), applied, hashlib.blake2b(text, digest_size=8).hexdigest(), problem)


def why_loop(answer: Answer, in_trial: Sequence[Answer], context: Context) -> str:
    """Why an answer that cannot be used counts as a loop, after those ``in_trial``; "" if it does not."""
    if answer.problem == "loop":
        return "the reply repeats itself"
    if answer.problem and any(other.problem == "loop" for other in in_trial):
        return "the reply after a loop reaches the token limit"
    earlier = [record for record in context.history if record.proposal.answers][-LOOK_BACK:]
    equal = [r.number for r in earlier if any(other.hash == answer.hash for other in r.proposal.answers)]
    if equal:
        return f"the reply equals one of trial {equal[-1]}"
    before = earlier[-1].proposal.answers[-1].problem if earlier else ""
    return "the replies of two trials in a row reach the token limit" if answer.problem and before else ""
