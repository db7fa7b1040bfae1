"""Which form of edit a model follows best: unified diff, search and replace blocks, or the whole file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from agent.patch.apply import Form
from agent.types import Answer

TEMPLATES: dict[Form, str] = {"diff": "repair", "blocks": "repair-blocks", "file": "repair-file"}


def best_form(answers: Iterable[Answer], fits: bool) -> Form:
    """The form with the largest share of applied answers, one of each outcome added.

    Args:
        answers: of the model, in any order.
        fits: whether an answer has room for the whole file.
    """
    applied: Counter[str] = Counter()
    tried: Counter[str] = Counter()
    for answer in answers:
        tried[answer.form] += 1
        applied[answer.form] += answer.applied
    forms: tuple[Form, ...] = ("blocks", "diff", "file") if fits else ("blocks", "diff")
    return max(forms, key=lambda form: (applied[form] + 1) / (tried[form] + 2))
