"""Proposes unified diffs to the whole file, written by a model.

One ask is one conversation. A reply that cannot be applied gets a repair round with the exact reason; an idea that was
tried before is asked again, each time at a higher temperature. Neither costs a training run. What was said is kept in
the trial's directory, and how often, how long and how much in ``Proposal.usage``.

The k-th request of a trial is seeded by (session seed, trial, k), and the prompt depends on the Context alone: the same
ledger leads to the same next prompt.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from agent.errors import ContextOverflow, ModelMisconfigured, NoEffect, PatchRejected
from agent.ledger.events import Event
from agent.llm.api_keys import scrub
from agent.llm.chat import Chat, Message, Reply
from agent.llm.prompts import block, fill, one_line
from agent.llm.transcript import no_answer, transcript
from agent.patch.apply import apply_reply, unified_diff
from agent.patch.normal_form import normal_form, only_seed_changes
from agent.proposers.code.grammar import answer_grammar
from agent.proposers.code.header import read_header
from agent.proposers.code.history import in_noise
from agent.proposers.code.prompt import SMALLEST_ANSWER, Prompt, build_prompt, margin, user
from agent.proposers.protocol import Context
from agent.types import Ending, Proposal, Record

OVERFLOWS = 3  # prompts that the server may find too long before we give up
WARMER, WARMEST = 0.2, 1.3  # what a repeat adds to the temperature, and where it ends
REPLY_LIMIT = 12_000  # characters of a failed reply that the repair round shows to the model


class Unusable(Exception):
    """A reply that leads to no candidate. ``how`` says which round may follow."""

    def __init__(self, ending: Ending, reason: str, form: str = "") -> None:
        super().__init__(reason)
        self.ending, self.reason, self.form = ending, reason, form

    @property
    def again(self) -> str:
        """``repeat``: the idea is not new; ``repair``: the reply cannot be used."""
        return "repeat" if self.ending in ("duplicate", "no_effect") else "repair"


class CodeProposer:
    """Asks ``model`` for an edit of the one editable file.

    Args:
        model: where the ideas come from.
        path: name of the file, as the diffs have it; the Context's own name wins.
        repairs: repair rounds per ask for replies that cannot be applied.
        repeats: further rounds per ask for ideas that were tried before or change nothing.
        temperature: of the first request.
        plateau_after: attempts without a keep after which the prompt asks for something else; 0 never does.
        enforce: hold the form of the answer with a grammar where the server can. For a model that thinks, the server
            must know its reasoning (vLLM: --reasoning-parser): then the form binds only what follows it.
    """

    name = "code"

    def __init__(
        self,
        model: Chat,
        path: str = "train.py",
        *,
        repairs: int = 1,
        repeats: int = 3,
        temperature: float = 0.7,
        plateau_after: int = 8,
        enforce: bool = True,
    ) -> None:
        self.model, self.path = model, path
        self.rounds = {"repair": repairs, "repeat": repeats}
        self.temperature, self.plateau_after, self.enforce = temperature, plateau_after, enforce

    def ask(self, context: Context) -> Proposal:
        """One idea as a candidate file, or the reason why the model had none.

        Raises:
            ModelUnavailable: the model server fails, or the file does not fit its context.
        """
        talk = Talk(self.model, context, self.temperature, self.plateau_after, self.enforce)
        reply = talk.begin()
        while True:
            try:
                text, form = read_edit(reply, context)
            except Unusable as problem:
                if talk.rounds[problem.again] < self.rounds[problem.again]:
                    with suppress(ContextOverflow):  # the round does not fit: the problem stands
                        reply = talk.go_on(problem, reply)
                        continue
                return self._proposal(talk, reply, ending=problem.ending, reason=problem.reason, form=problem.form)
            diff = unified_diff(context.source, text, context.path)
            return self._proposal(talk, reply, diff=diff, text=text, form=form)

    def rebase(self, proposal: Proposal, source: str, path: str) -> str:
        return apply_reply(source, proposal.diff, path)

    def tell(self, record: Record) -> None:
        """Nothing to learn: the next Context holds every record."""

    def replay(self, events: Iterable[Event]) -> None:
        """Nothing to bring back: see ``tell``."""

    def _proposal(self, talk: Talk, reply: Reply, **fields: Any) -> Proposal:
        header = read_header(reply.text)
        return Proposal(
            proposer=self.name,
            source="llm",
            parent=talk.context.parent,
            subject=header.subject or f"Edit {talk.context.path}",
            rationale=header.rationale,
            category=header.category or "other",
            model=reply.model,
            transcript=talk.transcript,
            usage=talk.usage,
            **{"diff": "", **fields},
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
    if (earlier := first_with(form, (*context.history, *context.open))) is not None:
        raise Unusable("duplicate", repeated(earlier, context), form)
    if context.baseline and form == normal_form(context.baseline):
        raise Unusable("duplicate", "the same program as the unchanged baseline, which the branch has left", form)
    if only_seed_changes(context.source, text):
        raise Unusable("no_effect", "the edit changes nothing but random seeds, which is luck and no idea", form)
    return text, form


def first_with(form: str, history: Iterable[Record]) -> Record | None:
    """The first attempt whose file had this normal form."""
    return next((r for r in history if r.proposal.form == form and r.proposal.ending is None), None)


def repeated(earlier: Record, context: Context) -> str:
    """One line: which attempt it was, and what came of it."""
    what = f"the same program as attempt #{earlier.number} ({one_line(earlier.proposal.subject, 80)})"
    if earlier in context.open:
        return f"{what}, which is running now"
    if earlier.status != "ok":
        return f"{what}, which ended as {earlier.status.replace('_', ' ')}"
    gain = earlier.verdict.gain if earlier.verdict else None
    result = "kept" if earlier.decision == "keep" else "undone"
    return f"{what}, which was {result}" + (f", gain {in_noise(gain, context.noise_sd)}" if gain is not None else "")


@dataclass
class Talk:
    """The conversation of one ask."""

    model: Chat
    context: Context
    temperature: float
    plateau_after: int
    enforce: bool
    rounds: Counter[str] = field(default_factory=Counter)
    calls: list[Reply] = field(default_factory=list)
    prompt: Prompt = field(init=False)
    window: int | None = field(init=False)
    grammar: str | None = field(init=False)

    def begin(self) -> Reply:
        """Send the prompt; one that the server finds too long is cut further."""
        info = self.model.describe()
        self.window = info.max_model_len
        self.grammar = answer_grammar(self.context.path) if self.enforce and "grammar" in info.structured else None
        for _ in range(OVERFLOWS):
            self.prompt = build_prompt(self.context, self.model, self.window, self.plateau_after)
            try:
                return self._say("", [user(self.prompt.text)], self.prompt.max_tokens)
            except ContextOverflow as error:
                problem = error
                tried = self.model.count_tokens([user(self.prompt.text)]) + self.prompt.max_tokens
                told = error.window is not None and error.window != self.window
                self.window = error.window if told else tried * 3 // 4
        raise ModelMisconfigured(str(problem)) from None

    def go_on(self, problem: Unusable, reply: Reply) -> Reply:
        """Answer a reply that cannot be used, with the reason."""
        self.rounds[problem.again] += 1
        reason = problem.reason if problem.again == "repeat" else block(problem.reason, "text")
        remark = fill(problem.again, reason=reason, path=self.context.path)
        said = reply.text.strip()
        long: list[Message] = [user(self.prompt.text), {"role": "assistant", "content": said}, user(remark)]
        short = [user(f"{self.prompt.text}\n\n# Your last answer\n\n{remark}")]
        messages = long if said and len(said) <= REPLY_LIMIT and self._room(long) >= SMALLEST_ANSWER else short
        room = max(self._room(messages), SMALLEST_ANSWER)
        return self._say(f"{problem.again}-{self.rounds[problem.again]}", messages, room)

    def _room(self, messages: list[Message]) -> int:
        """Tokens that are free for an answer, at most as many as in the first round."""
        if self.window is None:
            return self.prompt.max_tokens
        free = self.window - margin(self.window) - self.model.count_tokens(messages)
        return min(self.prompt.max_tokens, free)

    def _say(self, name: str, messages: list[Message], max_tokens: int) -> Reply:
        self._write(f"{name}-prompt.md" if name else "prompt.md", messages[-1]["content"])
        reply = self.model.complete(
            messages,
            grammar=self.grammar,
            temperature=min(WARMEST, self.temperature + WARMER * self.rounds["repeat"]),
            seed=attempt_seed(self.context.seed, self.context.trial, len(self.calls)),
            max_tokens=max_tokens,
        )
        self.calls.append(reply)
        self._write(f"{name}-reply.md" if name else "reply.md", transcript(reply))
        return reply

    def _write(self, name: str, text: str) -> None:
        if self.context.transcripts is not None:
            self.context.transcripts.mkdir(parents=True, exist_ok=True)
            hide: Callable[[str], str] = getattr(self.model, "scrub", scrub)
            (self.context.transcripts / name).write_text(hide(text), encoding="utf-8", errors="replace")

    @property
    def transcript(self) -> str:
        """The directory of the transcripts, relative to the run directory."""
        directory, run = self.context.transcripts, self.context.run_directory
        if directory is None:
            return ""
        return directory.relative_to(run).as_posix() if run and directory.is_relative_to(run) else directory.name

    @property
    def usage(self) -> dict[str, float]:
        """Of all calls together."""
        return {
            "calls": len(self.calls),
            "requests": sum(reply.attempts for reply in self.calls),
            "tokens_in": sum(reply.tokens_in for reply in self.calls),
            "tokens_out": sum(reply.tokens_out for reply in self.calls),
            "seconds": round(sum(reply.seconds for reply in self.calls), 3),
            "repairs": self.rounds["repair"],
            "repeats": self.rounds["repeat"],
            "plateau": self.prompt.plateau,
        }


def attempt_seed(seed: int, trial: int, attempt: int) -> int:
    """31 bits from (session seed, trial, attempt): the same at every resume."""
    digest = hashlib.blake2b(f"{seed}/{trial}/{attempt}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big") & 0x7FFFFFFF
