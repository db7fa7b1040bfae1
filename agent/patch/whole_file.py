"""Reads a whole file in a model's reply as one hunk, and refuses code that may be only a part of the file.

A whole file is one closed fence with valid Python that shares at least half of the lines of the file and its last line,
keeps its comment markers, and elides nothing. A definition, constant or import may be missing only if its last use is
gone as well, and no scope may have fewer definitions: a function can be renamed, not removed.
"""

from __future__ import annotations

import ast
import contextlib
import re
from collections import Counter
from collections.abc import Sequence

from agent.errors import PatchRejected
from agent.patch.blocks import hunk_between, names_in
from agent.patch.fences import segments
from agent.patch.normal_form import parsed
from agent.patch.parse import FileDiff
from agent.text import visible

LEAST_SHARED = 0.5  # of the lines of the file with text, in any place
_INFO = ("", "python", "python3", "py")
_DEFINITION = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_MARKER = re.compile(r"#\s*-{2,}.*")
_ELIDED = re.compile(
    r"\s*(?:\.\.\.|…|pass)\s*|.*#.*(?:\.\.\.|…|"
    r"\b(?:unchanged|omitted|no changes?|existing code|(?:same )?as (?:before|above)|"
    r"(?:same|rest|remainder|remaining)\b.{0,20}\b(?:file|code|class|function|original|before|above))\b).*",
    re.IGNORECASE,
)


def read_whole_file(answer: str, reply: str, text: str, path: str) -> FileDiff | None:
    """The diff from ``text`` to the whole file in an answer; None if no fence holds most of the file.

    ``answer`` is the ``reply`` of a model without its reasoning.

    Raises:
        PatchRejected: the code may be a part of the file, or the reply holds several versions of it.
    """
    if not path.endswith(".py"):
        return None
    old = text.replace("\r\n", "\n").removesuffix("\n").split("\n")
    found: dict[str, list[str]] = {}
    before: Sequence[str] = ()
    least = LEAST_SHARED * max(sum(bool(line.strip()) for line in old), 1)
    for part in segments(answer):
        named = names_in(part.info.rpartition(":")[2])
        known = {line.strip() for line in part.lines}
        shared = sum(line.strip() in known for line in old if line.strip())
        if part.fenced and (named or part.info in _INFO) and shared >= least:
            if not part.closed:
                raise PatchRejected("the reply was cut off inside the file: its fence is never closed")
            if "\n".join(part.lines) not in reply:
                raise PatchRejected("a reasoning tag is inside the file: the file is ambiguous")
            found["\n".join(part.lines)] = named or names_in(next((s for s in reversed(before) if s.strip()), ""))
        before = part.lines
    if len(found) > 1:
        found.pop("\n".join(old), None)  # quoted before the edit
    if len(found) > 1:
        raise PatchRejected(f"the reply holds {len(found)} versions of {path}; send one")
    for new, names in found.items():
        _check_whole(text, new, path)
        return FileDiff(names, [hunk_between(old, new.split("\n"))])
    return None


def _check_whole(text: str, new: str, path: str) -> None:
    partial = f"the code block is not clearly the whole {path}"
    old_lines, new_lines = ({line.strip() for line in side.split("\n")} - {""} for side in (text, new))
    elided = next((s for s in new.split("\n") if s.strip() not in old_lines and _ELIDED.fullmatch(s)), None)
    if elided is not None:
        raise PatchRejected(f"{partial}: a line may stand for code that was left out: {visible(elided.strip())}")
    last = text.rstrip().rpartition("\n")[2].strip()
    if last not in new_lines:
        raise PatchRejected(f"{partial}: its last line is missing: {visible(last)}")
    if gone := next((line for line in sorted(old_lines - new_lines) if _MARKER.fullmatch(line)), None):
        raise PatchRejected(f"{partial}: the marker is missing: {visible(gone)}")
    try:
        before = parsed(text)
    except SyntaxError:
        raise PatchRejected(f"{path} is not Python; send a diff") from None
    with contextlib.suppress(SyntaxError):  # the patch module explains it
        if lost := _lost(before, parsed(new)):
            raise PatchRejected(f"{partial}: it lacks {', '.join(sorted(lost)[:5])}; keep them, or send a diff")


def _lost(before: ast.Module, after: ast.Module) -> set[str]:
    """Names that ``before`` binds and ``after`` does not, unless the last use elsewhere is gone as well."""
    kept, still_used = bound_names(after), _uses(after)
    lost = set()
    for name, node in bound_names(before).items():
        scope, _, last = name.rpartition(".")
        if name in kept or (scope and scope not in kept):
            continue
        imported = isinstance(node, ast.Import | ast.ImportFrom)
        if last in still_used or not (imported or last in _uses(before, outside=node)):
            lost.add(name)
    sizes = _sizes(after)
    fewer = any(old > sizes[scope] for scope, old in _sizes(before).items() if scope in sizes)
    return lost or ({"some of the definitions"} if fewer else set())


def _sizes(tree: ast.Module) -> Counter[str]:
    """The number of definitions at module level, and of methods of all classes of one name."""
    scopes = [("", tree.body), *((node.name, node.body) for node in tree.body if isinstance(node, ast.ClassDef))]
    found = Counter[str]()
    for name, body in scopes:
        found[name] += sum(isinstance(part, _DEFINITION) for part in body)
    return found


def bound_names(tree: ast.Module) -> dict[str, ast.stmt]:
    """The names bound at module level and the methods of classes, each with its statement."""
    found: dict[str, ast.stmt] = {}
    for node in tree.body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            found |= {(alias.asname or alias.name).partition(".")[0]: node for alias in node.names}
        elif isinstance(node, _DEFINITION):
            found[node.name] = node
            if isinstance(node, ast.ClassDef):
                found |= {f"{node.name}.{part.name}": part for part in node.body if isinstance(part, _DEFINITION)}
        else:
            stored = (part for part in ast.walk(node) if isinstance(part, ast.Name))
            found |= {part.id: node for part in stored if isinstance(part.ctx, ast.Store)}
    return found


def _uses(tree: ast.AST, outside: ast.stmt | None = None) -> set[str]:
    """The names and attributes that a tree reads, without those in the statement ``outside``."""
    inside = set(ast.walk(outside)) if outside else set()
    nodes = [node for node in ast.walk(tree) if node not in inside]
    read = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    return read | {node.attr for node in nodes if isinstance(node, ast.Attribute)}
