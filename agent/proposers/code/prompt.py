"""Builds the prompt of the code proposer. If it is too long, history is left out first; the file is never cut."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from typing import NamedTuple, Protocol

from agent.errors import ModelMisconfigured
from agent.llm.chat import BYTES_PER_TOKEN, Chat, Message
from agent.llm.prompts import block, cut_notes, fill
from agent.patch.normal_form import program_of
from agent.proposers.code import history
from agent.proposers.code.header import Header
from agent.proposers.protocol import PLATEAU, Context
from agent.text import better
from agent.types import IdeaUse

HISTORY_LIMIT = 60_000  # characters
DEFAULT_WINDOW = 32_768  # tokens, for a server that does not report its context window
ANSWER = 16_384  # tokens reserved for the answer, reasoning included; at most a third of the window
SMALLEST_ANSWER = 1024  # tokens
LATEST = 24  # trials whose categories count on a plateau
FEW, MANY = 4, 8  # ideas in a prompt, and on a plateau


class Material(Protocol):
    """Ideas that a prompt shows."""

    def show(self, context: Context, count: int) -> Mapping[str, str]:
        """At most ``count`` ideas for the next edit: the text of each by its key."""
        ...

    def use_of(self, header: Header, shown: Collection[str], context: Context) -> IdeaUse:
        """Which idea an edit takes up, where the prompt has shown the ideas with the keys ``shown``."""
        ...


class Prompt(NamedTuple):
    text: str
    max_tokens: int  # of the answer
    plateau: int  # 0: none, 1: other category, 2: combine near misses, 3: bolder change
    ideas: tuple[str, ...] = ()  # keys of the ideas that it shows


def build_prompt(context: Context, model: Chat, window: int | None, material: Material | None = None) -> Prompt:
    """The prompt with as much history as fits into ``window`` tokens.

    Raises:
        ModelMisconfigured: the file alone is too long.
    """
    window = window or DEFAULT_WINDOW
    level = plateau_level(context.plateau)
    answer = min(ANSWER, window // 3)
    limit, extras = HISTORY_LIMIT, True
    while True:
        earlier = history.render_history(context, limit) if limit else "Left out to save space."
        ideas = material.show(context, MANY if level else FEW) if material and extras else {}
        text = _fill(context, earlier, level, extras, ideas)
        over = model.count_tokens([user(text)]) + answer + margin(window) - window
        if over <= 0:
            return Prompt(text, answer, level, tuple(ideas))
        if limit:
            limit = min(limit, len(earlier)) - int(over * BYTES_PER_TOKEN * 1.1)
            limit = limit if limit >= 400 else 0
        elif extras:
            limit, extras = HISTORY_LIMIT, False
        else:
            break
    room = answer - over
    if room >= SMALLEST_ANSWER:
        return Prompt(text, room, level, tuple(ideas))
    raise ModelMisconfigured(
        f"{context.path} does not fit the model's context of {window} tokens: the shortest prompt leaves "
        f"{max(room, 0)} for the answer, and it needs {SMALLEST_ANSWER}. Start the model server with a larger "
        "--max-model-len."
    )


def margin(window: int) -> int:
    """Tokens reserved for the chat template and for errors of estimates."""
    return 32 + window // 100


def user(text: str) -> Message:
    """A message of the user."""
    return {"role": "user", "content": text}


def _fill(context: Context, earlier: str, level: int, extras: bool, ideas: Mapping[str, str]) -> str:
    remarks = [
        *([history.last_failure(context), plateau_text(context, level)] if extras else []),
        context.memory.page(program_of(context.source)) if extras else "",
        fill("material", ideas="\n".join(ideas.values())) if ideas else "",
        history.open_trials(context),
    ]
    return fill(
        "code",
        path=context.path,
        metric=context.metric,
        goal=f"{better(context.goal).capitalize()}.",
        notes=cut_notes(context.notes) or "No special wishes: a better result.",
        hardware=context.hardware,
        budget=context.budget,
        standing=history.standing(context).strip(),
        history=earlier,
        remarks="\n\n".join(remark.strip() for remark in remarks if remark),
        source=block(context.source, "python"),
    )


def plateau_level(since_keep: int) -> int:
    """0 before the plateau; then 1, 2, 3 in turn, each for ``PLATEAU`` trials without a keep."""
    return 1 + (since_keep // PLATEAU - 1) % 3 if since_keep >= PLATEAU else 0


def plateau_text(context: Context, level: int) -> str:
    """The request for another kind of change on a plateau; "" for level 0."""
    if level == 0:
        return ""
    near = history.near_misses(context)
    if level == 2 and len(near) >= 2:
        shown = [
            f"{history.summaries([record], context)}\n{history.cut_diff(record.proposal.diff, 1500)}" for record in near
        ]
        return fill("plateau-combine", count=context.plateau, near="\n\n".join(shown))
    if level == 3:
        return fill("plateau-bold", count=context.plateau)
    used = Counter(record.proposal.category for record in context.history[-LATEST:] if record.proposal.category)
    fewest = sorted(history.CATEGORIES[:-1], key=lambda name: (used[name], history.CATEGORIES.index(name)))[:3]
    counts = ", ".join(f"{name} ({count})" for name, count in used.most_common()) or "none"
    return fill("plateau-category", count=context.plateau, used=counts, unused=", ".join(fewest))
