"""Asking a model for a configuration: the prompt, the enforced form, the check, one repair, the record of it all."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from agent.errors import ReplyRejected
from agent.llm.chat import Chat, Message, Reply
from agent.llm.prompts import block as fenced
from agent.llm.prompts import fill, one_line
from agent.llm.transcript import no_answer, transcript
from agent.proposers.protocol import NoPoint, Suggestion
from agent.proposers.search.answer_forms import RATIONALE, block_grammar, point_schema, read_diff, read_object
from agent.space.space import SearchSpace
from agent.types import Value

Form = Literal["diff", "json"]
Accept = Callable[[Mapping[str, Value]], str]  # why a valid configuration will not do; empty when it will
Doubt = Callable[[Mapping[str, Value]], tuple[float, str]]  # how likely it is to work, and a doubt in words, or none

TEMPERATURE = 0.7
LONGEST = 8192  # tokens of an answer, reasoning included
SHORTEST = 512
REPAIRS = 1


@dataclass
class Conversation:
    """The calls of one ask. ``random`` gives each its seed."""

    llm: Chat
    random: np.random.Generator
    parts: list[str] = field(default_factory=list)
    replies: list[Reply] = field(default_factory=list)
    repairs: int = 0

    def say(self, messages: Sequence[Message], **form: Any) -> Reply:
        """Ask the model. Raises ModelUnavailable, ContextOverflow."""
        window = self.llm.describe().max_model_len
        room = LONGEST if window is None else max(SHORTEST, window - self.llm.count_tokens(messages) - 64)
        seed = int(self.random.integers(2**31))
        self.parts.append(f"# Prompt\n\n{messages[-1]['content'].strip()}\n")
        reply = self.llm.complete(messages, temperature=TEMPERATURE, seed=seed, max_tokens=min(LONGEST, room), **form)
        self.replies.append(reply)
        self.parts.append(f"# Reply\n\n{transcript(reply)}")
        return reply

    def until_good(self, prompt: str, form: Mapping[str, Any], read: Callable[[Reply], Any]) -> Any:
        """What ``read`` makes of the reply; a reply that it rejects is answered with the reason, once.

        Raises:
            NoPoint: the second reply is no good either.
        """
        messages: list[Message] = [{"role": "user", "content": prompt}]
        for attempt in range(REPAIRS + 1):
            try:
                reply = self.say(messages, **form)
                if problem := no_answer(reply):
                    raise ReplyRejected(problem)
                return read(reply)
            except ReplyRejected as error:
                if attempt == REPAIRS or not self.replies:
                    raise self.failed(str(error)) from None
                self.repairs += 1
                remark = fill("hparams-repair", reason=fenced(str(error)[:2000], "text"))
                said = self.replies[-1].text.strip()[:8000] or "(nothing)"
                messages = [*messages, {"role": "assistant", "content": said}, {"role": "user", "content": remark}]
        raise AssertionError("the loop ends by returning or raising")

    def failed(self, reason: str) -> NoPoint:
        return NoPoint(f"the model gave no usable configuration: {reason}", self.transcript, self.model, self.usage)

    @property
    def transcript(self) -> str:
        return "\n".join(self.parts)

    @property
    def model(self) -> str:
        return self.replies[-1].model if self.replies else ""

    @property
    def usage(self) -> dict[str, float]:
        return {
            "calls": len(self.replies),
            "requests": sum(reply.attempts for reply in self.replies),
            "tokens_in": sum(reply.tokens_in for reply in self.replies),
            "tokens_out": sum(reply.tokens_out for reply in self.replies),
            "seconds": round(sum(reply.seconds for reply in self.replies), 3),
            "repairs": self.repairs,
        }

    def suggestion(self, params: Mapping[str, Value], rationale: str = "") -> Suggestion:
        return Suggestion(params, "llm", rationale, self.model, self.transcript, self.usage)


class Adviser:
    """A model that is asked for one configuration at a time, as a diff of the block or as JSON."""

    def __init__(self, llm: Chat, space: SearchSpace, form: Form = "diff") -> None:
        self.llm, self.space, self.form = llm, space, form

    def advise(
        self,
        random: np.random.Generator,
        template: str,
        base: Mapping[str, Value],
        accept: Accept,
        doubt: Doubt | None = None,
        /,
        **values: str,
    ) -> Suggestion:
        """A configuration that ``accept`` has nothing against; a diff is one of the block with the values ``base``.

        What ``doubt`` says of the first answer is told to the model, which may think again. Of two different answers
        the one that is more likely to work is taken.

        Raises:
            NoPoint: no such configuration came, nor after the reason was given.
            ModelUnavailable: nobody answers.
        """
        space, talk = self.space, Conversation(self.llm, random)
        text = space.render(space.block, base)
        if self.form == "diff":
            answer = fill("hparams-diff", path=space.path, block=fenced(text, "python"))
        else:
            answer = fill("hparams-json", block=fenced(text, "python"), names=", ".join(space.names))
        doubtful: list[tuple[float, tuple[dict[str, Value], str]]] = []

        def read(reply: Reply) -> tuple[dict[str, Value], str]:
            if self.form == "diff":
                params, rationale = read_diff(space, text, reply.text), said_rationale(reply.text)
            else:
                params, rationale = read_object(space, reply.text)
            if problem := accept(params):
                raise ReplyRejected(problem)
            point = params, one_line(rationale, RATIONALE)
            if doubt is None or (talk.repairs and not doubtful):
                return point
            chance, problem = doubt(params)
            if problem and not talk.repairs:
                doubtful.append((chance, point))
                raise ReplyRejected(problem)
            return doubtful[0][1] if doubtful and doubtful[0][0] > chance else point

        try:
            params, rationale = talk.until_good(fill(template, answer=answer, **values), self.enforced(text), read)
        except NoPoint:
            if not doubtful:  # a doubtful point is still one that the model gave
                raise
            params, rationale = doubtful[0][1]
        return talk.suggestion(params, rationale)

    def enforced(self, text: str) -> dict[str, Any]:
        """What is sent along so that the server holds the form; empty if it cannot."""
        able = self.llm.describe().structured
        if self.form == "diff":
            return {"grammar": block_grammar(self.space, text)} if "grammar" in able else {}
        return {"schema": point_schema(self.space)} if "schema" in able else {}


def said_rationale(text: str) -> str:
    """What follows ``Rationale:`` in a reply."""
    lines = (line.strip() for line in text.splitlines())
    return next((line.partition(":")[2].strip() for line in lines if line.lower().startswith("rationale:")), "")
