"""When the answers of a model count as a loop: it repeats itself, or earlier trials had the same answers."""

from __future__ import annotations

from collections.abc import Sequence

from agent.llm.chat import Reply
from agent.llm.loops import hash_of, repeats_itself
from agent.patch.apply import form_of
from agent.proposers.protocol import Context
from agent.types import Answer

LOOK_BACK = 3  # earlier trials in which equal replies are looked for


def answer_of(reply: Reply, applied: bool) -> Answer:
    """The record of one reply."""
    cut = "length" if reply.finish_reason == "length" else ""
    return Answer(form_of(reply.text), applied, hash_of(reply), "loop" if repeats_itself(reply) else cut)


def why_loop(answer: Answer, in_trial: Sequence[Answer], context: Context) -> str:
    """Why an answer that cannot be used counts as a loop; "" if it does not.

    Args:
        answer: the last one of the trial.
        in_trial: the earlier ones of the trial.
        context: with the earlier trials.
    """
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
