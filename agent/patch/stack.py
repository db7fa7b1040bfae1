"""Several edits of one file in one text: each is merged by its content, and the result must hang together.

An edit builds on another (its parent) if it has no place in a text without it, or uses a name that only the other
defines. Two edits are rivals if they change the same lines, or both define the same new name.
"""

from __future__ import annotations

import ast
import builtins
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from agent.patch.merge3 import merge
from agent.patch.normal_form import parsed
from agent.patch.whole_file import bound_names

_KNOWN = frozenset(dir(builtins)) | {"__file__", "__name__", "__doc__", "__class__"}


@dataclass(frozen=True)
class Change:
    """An edit: the file before and after it."""

    before: str
    after: str


@dataclass(frozen=True)
class _Names:
    """Of a program."""

    defined: frozenset[str]  # at the top level
    unbound: frozenset[str]  # used, and bound nowhere in the file


def stack(base: str, changes: Sequence[Change]) -> str | None:
    """``base`` with all changes, merged in this order.

    Returns:
        None if a change has no place or adds nothing, if the result is no program or uses names that nothing defines,
        or if two changes define the same new name.
    """
    text = base
    for change in changes:
        merged = merge(change.before, ours=text, theirs=change.after)
        if merged is None or merged == text:
            return None
        text = merged
    try:
        sound = _names(text).unbound <= _names(base).unbound.union(*(_names(c.after).unbound for c in changes))
        added = [_names(c.after).defined - _names(c.before).defined for c in changes]
    except SyntaxError:
        return None
    return text if sound and sum(map(len, added)) == len(frozenset().union(*added)) else None


@lru_cache(maxsize=256)  # the same texts are merged again for each run
def _names(source: str) -> _Names:
    """Raises SyntaxError."""
    tree = parsed(source)
    bound, used = set(_KNOWN), set()
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name, ctx=ast.Load()):
                used.add(name)
            case ast.alias(name=name, asname=other):
                bound.add(other or name.split(".")[0])
            case (
                ast.Name(id=name) | ast.arg(arg=name) | ast.MatchMapping(rest=str(name))
                | ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name)
                | ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name))
            ):  # fmt: skip
                bound.add(name)
    imported = (ast.Import, ast.ImportFrom)
    defined = {n for n, node in bound_names(tree).items() if "." not in n and not isinstance(node, imported)}
    return _Names(frozenset(defined), frozenset(used - bound))
