"""Reads the idea bank: one Markdown file per idea, in ``prompts/ideas/`` and in the folder ``ideas/`` of a target.

A file holds TOML front matter between two lines ``+++``, at most 120 words of text, and at most one recipe: a unified
diff in a ``diff`` fence.

``idea_json`` is one element of schema ``overnight.ideas/1``, a list with one object per idea:

- name, key (file name without .md), category, applies_when, cost, interactions, source, expected, text, file
- recipe: the diff, or empty
- applies: whether the recipe applies to the target's present file; null without recipe or target
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import asdict, dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from agent.errors import PatchRejected, UsageError, check_choice, check_key
from agent.patch.apply import apply_reply
from agent.proposers.code.history import CATEGORIES
from agent.toml import Table

IDEAS_SCHEMA = "overnight.ideas/1"
FOLDER = "ideas"  # beside target.toml
MOST_WORDS = 120
LONGEST_NAME = 60  # characters; the name is the subject of the commit
KEYS = ("name", "category", "applies", "cost", "interactions", "source", "expected")
_FILE = re.compile(r"\+\+\+\n(?P<front>.*?)^\+\+\+\n(?P<body>.*)", re.DOTALL | re.MULTILINE)
_RECIPE = re.compile(r"^```diff\n(?P<diff>.*?)^```[ \t]*$", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Idea:
    """One technique."""

    key: str  # file name without .md
    name: str
    category: str  # one of CATEGORIES
    applies: str  # when the idea is worth a trial
    cost: str
    interactions: tuple[str, ...]  # words, or keys of other ideas
    source: str  # paper or record, with year and link
    expected: float  # prior for the order of trials, 0 to 1
    text: str  # what and why
    recipe: str  # unified diff; "" if there is none
    file: str

    @property
    def reply(self) -> str:
        """The recipe in the form of a model's reply, for the patch module."""
        return f"```diff\n{self.recipe}```\n"


def load_bank(target: Path | None = None) -> tuple[Idea, ...]:
    """The shipped ideas, then those of the folder ``ideas/`` of a target, each in the order of the file names.

    Raises:
        UsageError: a file breaks the format, or two ideas have one name. Names the file and the key.
    """
    folders: list[Traversable] = [resources.files("prompts") / FOLDER]
    if target is not None and (target / FOLDER).is_dir():
        folders.append(target / FOLDER)
    found: dict[str, Idea] = {}
    for folder in folders:
        for file in sorted(folder.iterdir(), key=lambda file: file.name):
            if file.name.endswith(".md"):
                idea = read_idea(file.name, _text(file), str(file))
                for name in {idea.key, idea.name.lower()}:
                    if name in found:
                        raise UsageError(f"{file}: name {name!r} is already used by {found[name].file}.")
                    found[name] = idea
    return tuple(dict.fromkeys(found.values()))


def _text(file: Traversable) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(f"{file}: {error}.") from None


def read_idea(name: str, text: str, where: str) -> Idea:
    """Parse one file. Raises ``UsageError`` that names ``where`` and the key."""
    parts = _FILE.fullmatch(text.replace("\r\n", "\n"))
    if parts is None:
        raise UsageError(f"{where}: the file must begin with TOML between two lines +++.")
    try:
        front = tomllib.loads(parts["front"])
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{where}: {error}.") from None
    for key in front:
        check_key(key, KEYS, where)
    for key in KEYS:
        if key not in front:
            raise UsageError(f"{where}: {key} is missing.")
    table = Table(where, front)
    check_choice(table.string("category"), CATEGORIES, f"{where}: category")
    if len(table.string("name")) > LONGEST_NAME:
        raise UsageError(f"{where}: name has more than {LONGEST_NAME} characters.")
    recipes = list(_RECIPE.finditer(parts["body"]))
    if len(recipes) > 1:
        raise UsageError(f"{where}: {len(recipes)} diff fences; an idea has at most one recipe.")
    recipe = recipes[0]["diff"] if recipes else ""
    return Idea(
        key=name.removesuffix(".md"),
        expected=_expected(front["expected"], where),
        interactions=table.strings("interactions", default=()),
        text=_prose(_RECIPE.sub("", parts["body"]), where),
        recipe=recipe,
        file=where,
        **{key: table.string(key) for key in ("name", "category", "applies", "cost", "source")},
    )


def _prose(body: str, where: str) -> str:
    text = body.strip()
    if not (words := len(text.split())):
        raise UsageError(f"{where}: text is empty; say what the idea is and why it may help.")
    if words > MOST_WORDS:
        raise UsageError(f"{where}: text has {words} words; at most {MOST_WORDS} are allowed.")
    return text


def _expected(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
        raise UsageError(f"{where}: expected must be a number from 0 to 1, not {value!r}.")
    return float(value)


def applies_to(idea: Idea, source: str, path: str) -> bool | None:
    """Whether the recipe applies to the text ``source`` of the file ``path``; None without a recipe."""
    if not idea.recipe:
        return None
    try:
        apply_reply(source, idea.reply, path)
    except PatchRejected:
        return False
    return True


def idea_json(idea: Idea, applies: bool | None) -> dict[str, Any]:
    """The object of ``overnight ideas --json``."""
    found = asdict(idea)
    return {"schema": IDEAS_SCHEMA, **found, "applies_when": found["applies"], "applies": applies}
