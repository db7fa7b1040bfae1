"""Builds the prompt of the code proposer so that it fits: history is cut first, the file never."""

from __future__ import annotations

from typing import NamedTuple

from agent.errors import ModelMisconfigured
from agent.llm.chat import BYTES_PER_TOKEN, Chat, Message
from agent.llm.prompts import block, cut_notes, fill
from agent.proposers.code import history as told
from agent.proposers.protocol import Context

HISTORY_LIMIT = 60_000  # characters
USUAL_WINDOW = 32_768  # tokens, where the server does not tell
ANSWER = 16_384  # tokens kept free for the answer, thinking included, as far as a third of the window allows
SMALLEST_ANSWER = 1024


class Prompt(NamedTuple):
    text: str
    max_tokens: int  # room for the answer
    plateau: int  # 0: none; 1: other category, 2: combine near misses, 3: bolder


def build_prompt(context: Context, model: Chat, window: int | None, plateau_after: int) -> Prompt:
    """The prompt with as much history as fits into ``window`` tokens.

    Raises:
        ModelMisconfigured: the file alone is too long for the window.
    """
    window = window or USUAL_WINDOW
    level = plateau_level(context.plateau, plateau_after)
    answer = min(ANSWER, window // 3)
    for extras in (True, False):
        limit = HISTORY_LIMIT
        while True:
            history = told.render_history(context, limit) if limit else "Left out for lack of room."
            text = _fill(context, history, level, extras)
            over = model.count_tokens([user(text)]) + answer + margin(window) - window
            if over <= 0:
                return Prompt(text, answer, level)
            if not limit:
                break
            limit = min(limit, len(history)) - int(over * BYTES_PER_TOKEN * 1.1)
            limit = limit if limit >= 400 else 0
    room = answer - over
    if room >= SMALLEST_ANSWER:
        return Prompt(text, room, level)
    raise ModelMisconfigured(
        f"{context.path} does not fit the model's context of {window} tokens: the shortest prompt leaves "
        f"{max(room, 0)} for the answer, and it needs {SMALLEST_ANSWER}. Start the model server with a larger "
        "--max-model-len."
    )


def margin(window: int) -> int:
    """Tokens left free for what a chat template adds, and for an estimate that is a little off."""
    return 32 + window // 100


def user(text: str) -> Message:
    return {"role": "user", "content": text}


def _fill(context: Context, history: str, level: int, extras: bool) -> str:
    goal = "Lower is better." if context.goal == "minimize" else "Higher is better."
    remarks = [told.last_failure(context), plateau_text(context, level)] if extras else []
    remarks.append(told.under_way(context))
    return fill(
        "code",
        path=context.path,
        metric=context.metric,
        goal=goal,
        notes=cut_notes(context.notes) or "Nothing in particular: a better result.",
        hardware=context.hardware,
        budget=context.budget,
        standing=told.standing(context).strip(),
        history=history,
        remarks="\n\n".join(remark.strip() for remark in remarks if remark),
        source=block(context.source, "python"),
    )


# --- plateaus -------------------------------------------------------------------------------------------------------


def plateau_level(since_keep: int, plateau_after: int) -> int:
    """0 while things go well; then 1, 2, 3 and 1 again, each for ``plateau_after`` attempts without a keep."""
    if plateau_after <= 0 or since_keep < plateau_after:
        return 0
    return 1 + (since_keep // plateau_after - 1) % 3


def plateau_text(context: Context, level: int) -> str:
    """What is asked for after a row of attempts without a keep."""
    if level == 0:
        return ""
    near = told.near_misses(context)
    if level == 2 and len(near) >= 2:
        shown = [f"{told.line(record, context)}\n{told.cut_diff(record.proposal.diff, 1500)}" for record in near]
        return fill("plateau-combine", count=context.plateau, near="\n\n".join(shown))
    if level == 3:
        return fill("plateau-bold", count=context.plateau)
    used = told.categories_used(context)
    fewest = sorted(told.CATEGORIES[:-1], key=lambda name: (used[name], told.CATEGORIES.index(name)))[:3]
    counts = ", ".join(f"{name} ({count})" for name, count in used.most_common()) or "not named"
    return fill("plateau-category", count=context.plateau, used=counts, unused=", ".join(fewest))
