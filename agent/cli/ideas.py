"""``overnight ideas``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Group, RenderableType
from rich.syntax import Syntax
from rich.text import Text

from agent.cli.output import show
from agent.errors import UsageError, nearest
from agent.proposers.ideas.bank import Idea, applies_to, idea_json, load_bank
from agent.review.terminal.table import Column, Columns
from agent.target import load_target
from agent.text import clean, safe

_APPLIES = {True: "yes", False: "no", None: "—"}


def ideas(name: str | None, target: str | None, json: bool) -> None:
    folder = Path(target or ".")
    bank = load_bank(folder)
    if name is not None:
        wanted = [idea for idea in bank if name.lower() in (idea.key, idea.name.lower())]
        if not wanted:
            raise UsageError(f"ideas: no idea {name!r}.{nearest(name, (idea.key for idea in bank))}")
        bank = tuple(wanted)
    applies: list[bool | None] = [None] * len(bank)
    if target is not None or (folder / "target.toml").is_file():
        path = load_target(folder)[0].path
        source = (folder / path).read_text(encoding="utf-8")
        applies = [applies_to(idea, source, path) for idea in bank]
    show(
        json,
        list(zip(bank, applies, strict=True)),
        lambda rows: [idea_json(idea, fits) for idea, fits in rows],
        lambda rows: _list(rows) if name is None else _page(*rows[0]),
    )


def _list(rows: Sequence[tuple[Idea, bool | None]]) -> RenderableType:
    columns = (
        Column("idea", lambda row: safe(row[0].key)),
        Column("name", lambda row: safe(row[0].name), cut=True),
        Column("category", lambda row: row[0].category),
        Column("recipe applies", lambda row: _APPLIES[row[1]] if row[0].recipe else "no recipe"),
    )
    return Columns(columns, rows)


def _page(idea: Idea, fits: bool | None) -> RenderableType:
    facts = {
        "category": idea.category,
        "applies": idea.applies,
        "cost": idea.cost,
        "interactions": ", ".join(idea.interactions) or "none",
        "source": idea.source,
        "expected": f"{idea.expected:g}",
        "recipe applies": _APPLIES[fits] if idea.recipe else "no recipe",
        "file": idea.file,
    }
    lines = [f"{key}: {value}" for key, value in facts.items()]
    parts: list[RenderableType] = [
        safe(idea.name, "bold"),
        Text(clean("\n".join(lines))),
        Text(clean(f"\n{idea.text}\n")),
    ]
    if idea.recipe:
        parts.append(Syntax(clean(idea.recipe), "diff", background_color="default"))
    return Group(*parts)
