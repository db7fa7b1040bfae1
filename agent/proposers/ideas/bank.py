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
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from agent.errors import PatchRejected, UsageError, check_choice, check_key
from agent.patch.apply import apply_reply
from agent.proposers.code.history import CATEGORIES

IDEAS_SCHEMA = "overnight.ideas/1"
FOLDER = "ideas"  # beside target.toml
MOST_WORDS = 120
LONGEST_NAME = 60  # characters; the name is the subject of the commit
KEYS = ("name", "category", "applies", "cost", "interactions", "source", "expected")
_FILE = re.compile(r"\+\+\+\n(?P<front>.*?)^\+\+\+\n(?P<body>.*)", re.DOTALL | re.MULTILINE)
_RECIPE = re.compile(r"^```diff\n(.*?)^```[ \t]*$", re.DOTALL | re.MULTILINE)
_MUST_BE = {
    "name": f"text of at most {LONGEST_NAME} characters", "interactions": "a list of texts",
    "expected": "a number from 0 to 1",
}  # fmt: skip
_Text = Annotated[str, Meta(min_length=1)]


@dataclass(frozen=True)
class Idea:
    """One technique."""

    key: str  # file name without .md
    name: Annotated[str, Meta(min_length=1, max_length=LONGEST_NAME)]
    category: str  # one of CATEGORIES
    applies: _Text  # when the idea is worth a trial
    cost: _Text
    interactions: tuple[_Text, ...]  # words, or keys of other ideas
    source: _Text  # paper or record, with year and link
    expected: Annotated[float, Meta(ge=0, le=1)]  # prior for the order of trials
    text: str  # what and why
    recipe: str  # unified diff; "" if there is none
    file: str

    @property
    def reply(self) -> str:
        """The recipe in the form of a model's reply, for the patch module."""
        return f"```diff\n{self.recipe}```\n"


def load_bank(target: Path | None = None) -> tuple[Idea, ...]:
    """The shipped ideas, then those of the folder ``ideas/`` of a target, each in the order of the file names.

    Raises UsageError, with the file and the key, if a file breaks the format or two ideas have one name.
    """
    folders: list[Traversable] = [resources.files("prompts") / FOLDER]
    if target is not None and (target / FOLDER).is_dir():
        folders.append(target / FOLDER)
    files = [file for folder in folders for file in sorted(folder.iterdir(), key=lambda file: file.name)]
    found: dict[str, Idea] = {}
    for file in files:
        if not file.name.endswith(".md"):
            continue
        try:
            idea = read_idea(file.name, file.read_text(encoding="utf-8"), str(file))
        except UnicodeDecodeError as error:
            raise UsageError(f"{file}: {error}.") from None
        for name in {idea.key, idea.name.lower()}:
            if name in found:
                raise UsageError(f"{file}: name {name!r} is already used by {found[name].file}.")
            found[name] = idea
    return tuple(dict.fromkeys(found.values()))


def read_idea(name: str, text: str, where: str) -> Idea:
    """Parse one file. Raises ``UsageError`` that names ``where`` and the key."""
    parts = _FILE.fullmatch(text.replace("\r\n", "\n"))
    if parts is None:
        raise UsageError(f"{where}: the file must begin with TOML between two lines +++.")
    recipes, prose = _RECIPE.findall(parts["body"]), _RECIPE.sub("", parts["body"]).strip()
    if len(recipes) > 1:
        raise UsageError(f"{where}: {len(recipes)} diff fences; an idea has at most one recipe.")
    if not 1 <= (words := len(prose.split())) <= MOST_WORDS:
        raise UsageError(f"{where}: text has {words} words; say in at most {MOST_WORDS} what the idea is and why.")
    made = {"key": name.removesuffix(".md"), "text": prose, "recipe": "".join(recipes), "file": where}
    try:
        front = tomllib.loads(parts["front"])
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{where}: {error}.") from None
    for key in front:
        check_key(key, KEYS, where)
    if missing := [key for key in KEYS if key not in front]:
        raise UsageError(f"{where}: {missing[0]} is missing.")
    try:
        idea = msgspec.convert({**front, **made}, Idea)
    except msgspec.ValidationError as error:
        key = next((key for key in KEYS if f"$.{key}" in str(error)), "")
        raise UsageError(f"{where}: {key} must be {_MUST_BE.get(key, 'some text')}, not {front[key]!r}.") from None
    check_choice(idea.category, CATEGORIES, f"{where}: category")
    return idea


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
