"""Which form of edit a model follows best: unified diff, search and replace blocks, or the whole file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from agent.patch.apply import Form
from agent.types import Answer

TEMPLATES: dict[Form, str] = {"diff": "repair", "blocks": "repair-blocks", "file": "repair-file"}


def best_form(answers: Sequence[Answer], fits: bool) -> Form:
    """The form with the largest share of applied answers of a model, one of each outcome added.

    ``fits``: whether an answer has room for the whole file.
    """
    tried = Counter(answer.form for answer in answers)
    applied = Counter(answer.form for answer in answers if answer.applied)
    forms: tuple[Form, ...] = ("blocks", "diff", "file") if fits else ("blocks", "diff")
    return max(forms, key=lambda form: (applied[form] + 1) / (tried[form] + 2))
