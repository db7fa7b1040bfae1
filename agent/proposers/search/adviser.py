"""A model as adviser: it sees the results and proposes the next values of the block.

One ask is a prompt, an answer in an enforced form, a check, and at most one repair request.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, TypeVar

import numpy as np

from agent.errors import ReplyRejected
from agent.llm.chat import Chat, Message, Reply, usage_of
from agent.llm.prompts import block as fenced
from agent.llm.prompts import fill, one_line
from agent.llm.transcript import no_answer, transcript
from agent.proposers.search.answer_forms import RATIONALE, block_grammar, point_schema, read_diff, read_object
from agent.proposers.search.base import Method, NoPoint, Suggestion, successes
from agent.proposers.search.failure_model import MODEL, FailureModel
from agent.proposers.search.prompt_tables import bounds, latest, leaders, progress, table
from agent.proposers.search.surrogate import JUDGED, Surrogate
from agent.space.space import Key, Params, SearchSpace
from agent.types import Value

Form = Literal["diff", "json"]
Point = tuple[dict[str, Value], str]  # configuration and rationale
Points = dict[Key, Point]
T = TypeVar("T")

TEMPERATURE = 0.7
LONGEST = 8192  # tokens of an answer, reasoning included
SHORTEST = 512
POINTS = 4  # answers per request, where the process can compare them
AVOIDED = 1e6  # taken from the worth of points that must not run if another can


@dataclass
class Conversation:
    """The requests of one ask. ``random`` draws the seed of each."""

    llm: Chat
    random: np.random.Generator
    parts: list[str] = field(default_factory=list)
    replies: list[Reply] = field(default_factory=list)
    repairs: int = 0

    def say(self, messages: Sequence[Message], **form: Any) -> Reply:
        """Send one request. ``form`` are options of which the server gets the forms that it can enforce.

        Raises:
            ModelUnavailable: no server answers.
            ContextOverflow: the conversation is too long.
        """
        model, room = self.llm.describe(), LONGEST
        if model.max_model_len is not None:
            room = min(LONGEST, max(SHORTEST, model.max_model_len - self.llm.count_tokens(messages) - 64))
        form = {name: value for name, value in form.items() if name == "n" or name in model.structured}
        seed = int(self.random.integers(2**31))
        self.parts.append(f"# Prompt\n\n{messages[-1]['content'].strip()}\n")
        reply = self.llm.complete(messages, temperature=TEMPERATURE, seed=seed, max_tokens=room, **form)
        self.replies.append(reply)
        others = [f"# Another answer\n\n{text}\n" for text in reply.choices if text.strip() and text != reply.text]
        self.parts += [*others, f"# Reply\n\n{transcript(reply)}"]
        return reply

    def until_accepted(self, prompt: str, form: Mapping[str, Any], read: Callable[[Reply], T]) -> T:
        """The result of ``read``. A reply that it rejects is answered with the reason, once. Raises NoPoint."""
        messages: list[Message] = [{"role": "user", "content": prompt}]
        before = self.repairs
        while True:
            try:
                reply = self.say(messages, **form)
                if problem := no_answer(reply):
                    raise ReplyRejected(problem)
                return read(reply)
            except ReplyRejected as error:
                if self.repairs > before or not self.replies:
                    raise NoPoint(f"the model gave no usable configuration: {error}", *self.record()) from None
                self.repairs += 1
                remark = fill("hparams-repair", reason=fenced(str(error)[:2000], "text"))
                said = self.replies[-1].text.strip()[:8000] or "(nothing)"
                messages = [*messages, {"role": "assistant", "content": said}, {"role": "user", "content": remark}]

    def record(self) -> tuple[str, str, dict[str, float]]:
        """The model, the conversation as Markdown, and the usage."""
        usage = {**usage_of(self.replies), "repairs": self.repairs}
        return self.replies[-1].model if self.replies else "", "\n".join(self.parts), usage

    def suggestion(self, params: Params, rationale: str = "") -> Suggestion:
        return Suggestion(params, "llm", rationale, *self.record())


class Adviser:
    """A model that proposes configurations for ``method``, as diffs of the block or JSON objects."""

    def __init__(self, llm: Chat, method: Method, form: Form = "diff") -> None:
        self.llm, self.method, self.form = llm, method, form

    def advise(
        self, ask: int, template: str, state: str, failures: FailureModel | None
    ) -> tuple[Conversation, list[Point]]:
        """The conversation about the prompt ``template``, and the new configurations that it gave.

        If all answers will probably fail, they are sent back once with the probability; the points of both replies are
        returned.

        Args:
            ask: number of the ask; it seeds the requests.
            template: name of the prompt.
            state: state of the search, for the prompt.
            failures: the failures so far; None: one answer per request, which is never doubted.

        Raises:
            NoPoint: no valid new configuration after one repair request.
            ModelUnavailable: no server answers.
        """
        method, space = self.method, self.method.space
        talk = Conversation(self.llm, method.stream(ask, "llm"))
        block = space.render(space.block, method.baseline if method.best is None else method.best.params)
        answer, form, read_one = self._form(block)
        doubted: Points = {}

        def read(reply: Reply) -> Points:
            found = new_points(method, reply, read_one)
            if failures is None or talk.repairs:
                return doubted | found
            objections = [objection(method, failures, params) for params, _ in found.values()]
            if all(objections):
                doubted.update(found)
                raise ReplyRejected(objections[0])
            return found

        prompt = fill(
            template,
            answer=answer,
            bounds=bounds(space),
            best=table(space, leaders(method.observations), method.terms),
            latest=latest(method),
            state=state,
            **method.terms.variables,
        )
        try:
            points = talk.until_accepted(prompt, form if failures is None else {**form, "n": POINTS}, read)
        except NoPoint:
            if not doubted:  # the doubtful answers were valid
                raise
            points = doubted
        return talk, list(points.values())

    def _form(self, block: str) -> tuple[str, dict[str, Any], Callable[[str], Point]]:
        """The instructions for an answer about ``block``, the option that enforces its form, and how it is read."""
        shown, space = fenced(block, "python"), self.method.space
        if self.form == "diff":
            answer = fill("hparams-diff", path=space.path, block=shown)
            return answer, {"grammar": block_grammar(space, block)}, partial(read_diff, space, block)
        answer = fill("hparams-json", block=shown, names=", ".join(space.names))
        return answer, {"schema": point_schema(space)}, partial(read_object, space)


def readable(reply: Reply, read: Callable[[str], T]) -> list[T]:
    """What ``read`` finds in the choices of a reply. Raises ReplyRejected with its first reason if it finds nothing."""
    found, problem = [], ""
    for text in [text for text in reply.choices if text.strip()] or [reply.text]:
        try:
            found.append(read(text))
        except ReplyRejected as error:
            problem = problem or str(error)
    if not found:
        raise ReplyRejected(problem)
    return found


def new_points(method: Method, reply: Reply, read: Callable[[str], Point]) -> Points:
    """The different new configurations of a reply; ``read`` takes one choice. Raises ReplyRejected if there is none."""

    def new(text: str) -> Point:
        params, rationale = read(text)
        if wrong := "; ".join(method.space.valid(params)) or repeated(method, params):
            raise ReplyRejected(wrong)
        return params, one_line(rationale, RATIONALE)

    found: Points = {}
    for params, rationale in readable(reply, new):
        found.setdefault(method.space.key(params), (params, rationale))
    return found


def objection(method: Method, failures: FailureModel, params: Params) -> str:
    """The objection to a point of the model that will probably fail; empty for another."""
    success = float(failures.success_probability([method.space.to_unit(params)])[0])
    if success >= failures.threshold(MODEL):
        return ""
    failed = ", ".join(sorted({o.status for o in method.observations if o.value is None}))
    return (
        f"by the runs that failed so far ({failed}), a run of this configuration fails with a probability of "
        f"{1 - success:.0%}; stay further away from what failed, or answer the same again if you are sure"
    )


def repeated(method: Method, params: Params) -> str:
    """The result of a configuration that is not new, in words for the model; empty for a new one."""
    key = method.space.key(params)
    if key not in method.seen:
        return ""
    if key == method.space.key(method.baseline):
        return "this is the configuration that the search started from; change at least one value"
    known = next((o for o in method.observations if o.key == key), None)
    if known is None:
        return "this configuration is being tried right now; change at least one value"
    failed = known.value is None
    result = f"failed: {known.status}" if failed else f"gave {method.terms.shown(known.value or 0.0):.5f}"
    return f"this configuration was tried before and {result}; change at least one value"


class Hparams(Method):
    """The model alone: no optimiser. Of its points, the one with the largest expected improvement times success
    probability runs; one that will probably fail only without another. ``reply`` is the form of the answer: a ``diff``
    of the block, or ``json``.
    """

    source = "llm"

    def __init__(
        self, space: SearchSpace, seed: int = 0, baseline: Params | None = None, *, llm: Chat, reply: Form = "diff"
    ) -> None:
        super().__init__(space, seed, baseline)
        self.adviser = Adviser(llm, self, reply)
        self.surrogate = Surrogate(self)

    def propose(self, ask: int) -> Suggestion:
        failures = FailureModel(self.space, self.observations, self.space.to_unit(self.baseline))
        talk, points = self.adviser.advise(ask, "hparams", progress(self, self.surrogate), failures)
        places = [self.space.to_unit(params) for params, _ in points]
        success = failures.success_probability(places)
        worth = np.log(np.maximum(success, 1e-12)) - AVOIDED * (success < failures.threshold(MODEL))
        if len(successes(self.observations)) >= JUDGED:
            worth = worth + self.surrogate.outlook(places).log_improvement()
        return talk.suggestion(*points[int(np.argmax(worth))])
