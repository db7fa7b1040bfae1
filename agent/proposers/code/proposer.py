"""Proposes edits of a whole file as unified diffs written by a model.

One ``ask`` is one conversation, which is written to the trial's directory. A repair round follows a reply that does not
apply, with the exact reason; the last of several asks for the form of edit that this model has followed best. A repeat
round at a higher temperature follows an idea that was tried before. A reply that is a loop gets one round with other
sampling in place of these.

The prompt depends only on the Context, and request k of a trial has the seed (session seed, trial, k). So the same
ledger gives the same next request.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import Any

from agent.errors import ContextOverflow, ModelMisconfigured, NoEffect, PatchRejected
from agent.llm.chat import Chat, Message, Reply, usage_of
from agent.llm.prompts import block, fill, one_line
from agent.llm.transcript import no_answer, transcript
from agent.patch.apply import apply_reply, unified_diff
from agent.patch.normal_form import normal_form, only_seed_changes, program_of
from agent.proposers.code.failure import as_reply, failure_remark
from agent.proposers.code.forms import TEMPLATES, best_form
from agent.proposers.code.grammar import answer_grammar
from agent.proposers.code.header import read_header
from agent.proposers.code.history import outcome
from agent.proposers.code.loops import answer_of, why_loop
from agent.proposers.code.prompt import SMALLEST_ANSWER, Material, Prompt, build_prompt, margin, user
from agent.proposers.memory import effect_of
from agent.proposers.protocol import Context, Proposer
from agent.types import Answer, Ending, Proposal, Record

OVERFLOWS = 3  # requests to fit the prompt into an unknown context window
WARMER, WARMEST = 0.2, 1.3  # increase of the temperature per repeat round, and its maximum
OTHER_SAMPLING = {"temperature": 0.4, "frequency_penalty": 0.6}  # increase of the temperature, and the penalty
REPLY_LIMIT = 12_000  # characters of a failed reply up to which the next round quotes it


class Unusable(Exception):
    """A reply that gives no candidate: the ending of the proposal, the reason, and the normal form if there is one."""

    def __init__(self, ending: Ending, reason: str, form: str = "") -> None:
        super().__init__(reason)
        self.ending, self.reason, self.form = ending, reason, form
        self.repeats = ending in ("duplicate", "no_effect")  # whether the idea is not new


class CodeProposer(Proposer):
    """Asks a model for an edit of the one editable file.

    Args:
        model: the chat model.
        repairs: repair rounds per ``ask``, for replies that do not apply.
        repeats: repeat rounds per ``ask``, for ideas that were tried before or have no effect.
        temperature: of the first request.
        material: ideas of which some are shown in the prompt; None: none.

    A grammar is sent if the server enforces it. A server of a reasoning model needs a reasoning parser (vLLM:
    --reasoning-parser), so that the grammar binds only what follows the reasoning.
    """

    name = "code"

    def __init__(
        self,
        model: Chat,
        *,
        repairs: int = 1,
        repeats: int = 3,
        temperature: float = 0.7,
        material: Material | None = None,
    ) -> None:
        self.model, self.material, self.temperature = model, material, temperature
        self.rounds = {"repair": repairs, "repeat": repeats, "loop": 1}  # at most

    def ask(self, context: Context) -> Proposal:
        """See ``Proposer.ask``; ModelUnavailable also if the file does not fit the context window."""
        talk = Conversation(self, context)
        reply = talk.start()
        while True:
            try:
                text, form = read_edit(reply, context)
            except Unusable as problem:
                answer = answer_of(reply, problem.repeats)
                loop = why_loop(answer, talk.answers, context)
                talk.answers.append(answer)
                kind = "loop" if loop else "repeat" if problem.repeats else "repair"
                following = talk.next_round(kind, problem, reply)
                if following is None:
                    first, *quoted = problem.reason.split("\n")
                    reason = "\n".join([f"{first}; {loop}" if loop else first, *quoted])
                    ending = {"ending": problem.ending, "reason": reason, "form": problem.form, "loop": loop}
                    return self._proposal(talk, reply, diff="", **ending)
                reply = following
            else:
                talk.answers.append(answer_of(reply, True))
                diff = unified_diff(context.source, text, context.path)
                return self._proposal(talk, reply, diff=diff, text=text, form=form)

    def _proposal(self, talk: Conversation, reply: Reply, **fields: Any) -> Proposal:
        header = read_header(reply.text)
        rounds = {"repairs": talk.rounds["repair"], "repeats": talk.rounds["repeat"], "loops": talk.rounds["loop"]}
        return Proposal(
            proposer=self.name,
            source="llm",
            parent=talk.context.parent,
            subject=header.subject or f"Edit {talk.context.path}",
            rationale=header.rationale,
            category=header.category or "other",
            model=reply.model,
            transcript=talk.context.transcript,
            usage={**usage_of(talk.calls), **rounds, "plateau": talk.prompt.plateau},
            answers=tuple(talk.answers),
            ideas=self.material.use_of(header, talk.prompt.ideas, talk.context) if self.material else None,
            **fields,
        )


def read_edit(reply: Reply, context: Context) -> tuple[str, str]:
    """The edited file and its normal form. Raises Unusable."""
    if problem := no_answer(reply):
        raise Unusable("model_failed", problem)
    try:
        text = apply_reply(context.source, reply.text, context.path)
        form = normal_form(text)
    except NoEffect as error:
        raise Unusable("no_effect", str(error)) from None
    except PatchRejected as error:
        raise Unusable("patch_rejected", str(error)) from None
    except SyntaxError as error:
        raise Unusable("patch_rejected", f"the edited file is not Python: {error}") from None
    records = (*context.history, *context.open, *([context.failed] if context.failed else []))
    if failed := next((r for r in records if form in r.failed_forms), None):
        raise Unusable("duplicate", f"the same program as a version of trial #{failed.number} that failed", form)
    if earlier := next((r for r in records if r.proposal.form == form and r.proposal.ending is None), None):
        raise Unusable("duplicate", _same_as(earlier, context), form)
    if past := context.memory.repeat(program_of(context.source), form):
        what = f"trial #{past.trial} of session {one_line(past.run, 64)} made the same change of the same program"
        raise Unusable("duplicate", f"{what}: {effect_of(past)}", form)
    if context.baseline and form == normal_form(context.baseline):
        raise Unusable("duplicate", "the same program as the unchanged baseline, which is already measured", form)
    if only_seed_changes(context.source, text):
        raise Unusable("no_effect", "the edit changes only random seeds, so a difference would be noise", form)
    return text, form


def _same_as(earlier: Record, context: Context) -> str:
    """The earlier trial with the same program, and its outcome."""
    result = "it runs now" if earlier in context.open else outcome(earlier, context)
    return f"the same program as trial #{earlier.number} ({one_line(earlier.proposal.subject, 80)}): {result}"


class Conversation:
    """The conversation of one ``ask``."""

    prompt: Prompt

    def __init__(self, proposer: CodeProposer, context: Context) -> None:
        self.proposer, self.model, self.context = proposer, proposer.model, context
        self.rounds: Counter[str] = Counter()  # after the first request
        self.answers: list[Answer] = []
        self.calls: list[Reply] = []
        info = self.model.describe()
        self.window = info.max_model_len
        self.grammar = answer_grammar(context.path) if "grammar" in info.structured else None

    def start(self) -> Reply:
        """Send the prompt, with less history after each context overflow."""
        for _ in range(OVERFLOWS):
            self.prompt = build_prompt(self.context, self.model, self.window, self.proposer.material)
            try:
                return self._send("", *self._opening())
            except ContextOverflow as error:
                problem = error
                tried = self.model.count_tokens([user(self.prompt.text)]) + self.prompt.max_tokens
                new = error.window is not None and error.window != self.window
                self.window = error.window if new else tried * 3 // 4
        raise ModelMisconfigured(str(problem)) from None

    def _opening(self) -> tuple[list[Message], int]:
        """The first messages, and the tokens left for the answer."""
        if (failed := self.context.failed) is None:
            return [user(self.prompt.text)], self.prompt.max_tokens
        return self._follow_up(as_reply(failed.proposal), failure_remark(self.context, failed))

    def next_round(self, kind: str, problem: Unusable, reply: Reply) -> Reply | None:
        """Send the reason why a reply cannot be used; after a loop, send the first messages with other sampling.

        Returns:
            None if no round of this kind is left, or there is no room for one.
        """
        if self.rounds[kind] >= self.proposer.rounds[kind]:
            return None
        self.rounds[kind] += 1
        try:
            if kind == "loop":
                return self._send("loop", *self._opening())
            last = 1 < self.rounds[kind] == self.proposer.rounds[kind]
            template = self._other_form(reply) if kind == "repair" and last else kind
            remark = fill(template, reason=block(problem.reason, "text"), path=self.context.path)
            return self._send(f"{kind}-{self.rounds[kind]}", *self._follow_up(reply.text.strip(), remark))
        except ContextOverflow:
            return None

    def _follow_up(self, quoted: str, remark: str) -> tuple[list[Message], int]:
        """Prompt, last answer and a remark on it; without that answer if it is too long."""
        long: list[Message] = [user(self.prompt.text), {"role": "assistant", "content": quoted}, user(remark)]
        short = [user(f"{self.prompt.text}\n\n# Your last answer\n\n{remark}")]
        messages = long if quoted and len(quoted) <= REPLY_LIMIT and self._room(long) >= SMALLEST_ANSWER else short
        return messages, max(self._room(messages), SMALLEST_ANSWER)

    def _other_form(self, reply: Reply) -> str:
        """The template that asks for the form of edit which this model has followed best."""
        file: list[Message] = [{"role": "assistant", "content": self.context.source}]
        fits = 1.3 * self.model.count_tokens(file) < self.prompt.max_tokens
        earlier = (a for r in self.context.history if r.proposal.model == reply.model for a in r.proposal.answers)
        form = best_form([*earlier, *self.answers], fits)
        if form != "diff":
            self.grammar = None  # the grammar is that of a diff
        return TEMPLATES[form]

    def _room(self, messages: list[Message]) -> int:
        """Tokens left for an answer, at most as many as in the first round."""
        if self.window is None:
            return self.prompt.max_tokens
        free = self.window - margin(self.window) - self.model.count_tokens(messages)
        return min(self.prompt.max_tokens, free)

    def _send(self, name: str, messages: list[Message], max_tokens: int) -> Reply:
        self.context.write(f"{name}-prompt.md" if name else "prompt.md", messages[-1]["content"])
        warmer = WARMER * self.rounds["repeat"] + OTHER_SAMPLING["temperature"] * self.rounds["loop"]
        earlier = 100 * (1 + len(self.context.failed.repairs)) if self.context.failed else 0  # above all their requests
        digest = hashlib.blake2b(
            f"{self.context.seed}/{self.context.trial}/{earlier + len(self.calls)}".encode(), digest_size=4
        )
        reply = self.model.complete(
            messages,
            grammar=self.grammar,
            temperature=min(WARMEST, self.proposer.temperature + warmer),
            frequency_penalty=OTHER_SAMPLING["frequency_penalty"] if self.rounds["loop"] else None,
            seed=int(digest.hexdigest(), 16) & 0x7FFFFFFF,
            max_tokens=max_tokens,
        )
        self.calls.append(reply)
        self.context.write(f"{name}-reply.md" if name else "reply.md", transcript(reply))
        return reply
