"""``overnight ideas``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from agent.cli.options import Commands, add_command
from agent.cli.output import show
from agent.errors import UsageError, nearest

if TYPE_CHECKING:
    from rich.console import RenderableType

    from agent.proposers.ideas.bank import Idea

_APPLIES = {True: "yes", False: "no", None: "—"}


def add(commands: Commands) -> None:
    parser = add_command(commands, "ideas", ideas, "json")
    parser.add_argument("name", metavar="NAME", nargs="?", help="show this idea; default: list all")
    parser.add_argument("--target", metavar="DIR", help="folder with a target.toml (default: . if it has one)")


def ideas(name: str | None, target: str | None, json: bool) -> int:
    """List the idea bank, or show one idea."""
    from agent.proposers.ideas.bank import applies_to, idea_json, load_bank
    from agent.target import load_target

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
    rows = list(zip(bank, applies, strict=True))
    return show(
        json,
        lambda: [idea_json(idea, fits) for idea, fits in rows],
        lambda: _list(rows) if name is None else _page(*rows[0]),
    )


def _list(rows: Sequence[tuple[Idea, bool | None]]) -> RenderableType:
    from agent.review.terminal.table import Column, Columns
    from agent.text import safe

    columns = (
        Column("idea", lambda row: safe(row[0].key)),
        Column("name", lambda row: safe(row[0].name), cut=True),
        Column("category", lambda row: row[0].category),
        Column("recipe applies", lambda row: _APPLIES[row[1]] if row[0].recipe else "no recipe"),
    )
    return Columns(columns, rows)


def _page(idea: Idea, fits: bool | None) -> RenderableType:
    from rich.console import Group
    from rich.syntax import Syntax
    from rich.text import Text

    from agent.text import clean, safe

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
