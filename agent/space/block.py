"""The marked hyperparameter block of a source file: read its values, write new ones, change nothing else.

The block is the lines between two comment markers. Each line is ``NAME = literal  # comment``::

    # --- hyperparameters ---
    DEPTH = 8
    TOTAL_BATCH_SIZE = 2**19  # tokens per optimiser step
    # --- end of hyperparameters ---

A file without markers is usable if the names are given: each must be assigned a literal exactly once at module level.
The source is parsed, never executed.
"""

from __future__ import annotations

import ast
import io
import math
import operator
import re
import tokenize
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from agent.errors import UsageError, similar
from agent.types import Value

START = "# --- hyperparameters ---"
END = "# --- end of hyperparameters ---"

_MARKERS = {
    "start": re.compile(r"#\s*-+\s*hyperparameters\s*-+\s*", re.IGNORECASE),
    "end": re.compile(r"#\s*-+\s*end of hyperparameters\s*-+\s*", re.IGNORECASE),
}
_MARK = "\ufeff"  # byte order mark: Python skips it in files, not in strings
_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")  # lines as the parser counts them; str.splitlines differs
ARITHMETIC: dict[type[ast.AST], Callable[..., Any]] = {
    ast.UAdd: operator.pos,
    ast.USub: operator.neg,
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Pow: operator.pow,
}


@dataclass(frozen=True)
class Entry:
    """One assignment of the block."""

    name: str
    value: Value
    line: int  # from 1
    start: int  # first byte of the literal in its line
    end: int  # byte after the literal
    text: str  # the literal


def read_block(source: str, path: str = "train.py", names: Iterable[str] | None = None) -> dict[str, Entry]:
    """The entries of the block in file order.

    Args:
        source: text of the file.
        path: for messages.
        names: return exactly these entries, in this order; they also permit a file without markers.

    Raises:
        UsageError: no block, two blocks, a line that is not ``NAME = literal``, or a name that is missing or assigned
            twice. The message gives ``path`` and line.
    """
    source = source.removeprefix(_MARK)
    tree = _parse(source, path)
    span = _block_lines(source, path)
    if span:
        nodes = [node for node in tree.body if span[0] < node.lineno <= span[1]]
        _check_outside(tree, nodes, span[0], path)
    elif names is not None:
        nodes = [node for node in tree.body if set(names).intersection(_targets(node))]
    else:
        raise UsageError(f"{path}: no hyperparameter block; mark it with the lines {START!r} and {END!r}")
    lines = split_lines(source)
    entries: dict[str, Entry] = {}
    for node in nodes:
        entry = _entry(node, lines, path)
        if entry.name in entries:
            first = entries[entry.name].line
            raise UsageError(f"{path}:{entry.line}: {entry.name} is assigned twice (first in line {first}); keep one")
        entries[entry.name] = entry
    if names is None:
        return entries
    for name in names:
        if name not in entries:
            line, place = min((e.line for e in entries.values()), default=1), "block" if span else "file"
            hint = similar(name, entries)
            raise UsageError(f"{path}:{line}: hyperparameter {name} is not assigned in the {place}.{hint}")
    return {name: entries[name] for name in names}


def render_block(source: str, values: Mapping[str, Value], path: str = "train.py") -> str:
    """``source`` with the literals of ``values`` replaced: one changed line for each value that differs.

    Raises:
        UsageError: as ``read_block``.
    """
    entries = read_block(source, path, names=values)
    mark = _MARK if source.startswith(_MARK) else ""
    before = split_lines(source.removeprefix(mark))
    lines = list(before)
    for name, value in values.items():
        entry = entries[name]
        if entry.value == value and isinstance(entry.value, (bool, str)) == isinstance(value, (bool, str)):
            continue
        line = before[entry.line - 1].encode()
        new = literal(value, entry.text)
        rest = line[entry.end :].decode()
        # A comment that is aligned with its neighbours, or set apart by spaces, keeps its column if there is room.
        gap = re.match(r"( {2,})#", rest)
        neighbours = before[max(entry.line - 2, 0) : entry.line - 1] + before[entry.line : entry.line + 1]
        aligned = before[entry.line - 1].find("#") in (other.find("#") for other in neighbours)
        if gap and (aligned or len(gap[1]) > 2):
            rest = " " * max(2, len(gap[1]) + len(entry.text) - len(new)) + rest[len(gap[1]) :]
        lines[entry.line - 1] = line[: entry.start].decode() + new + rest
    return mark + "".join(lines)


def block_text(source: str, path: str = "train.py") -> str:
    """The lines of the block with its markers; empty if the file has no markers. Raises UsageError."""
    source = source.removeprefix(_MARK)
    span = _block_lines(source, path)
    return "".join(split_lines(source)[span[0] - 1 : span[1]]) if span else ""


def literal(value: Value, like: str = "") -> str:
    """``value`` as Python source, in the style of the literal ``like``: ``2**k``, ``1_000``, ``1e-3``, its quotes."""
    if isinstance(value, bool):
        return repr(value)
    if isinstance(value, str):
        text = repr(value)
        return f'"{value}"' if like.startswith('"') and '"' not in value and "\\" not in text else text
    if isinstance(value, int):
        if re.fullmatch(r"2\s*\*\*\s*\d+", like) and value > 0 and value & (value - 1) == 0:
            return re.sub(r"\d+$", str(value.bit_length() - 1), like)
        return f"{value:_}" if "_" in like else str(value)
    if re.search(r"\de", like, re.IGNORECASE) and value != 0 and math.isfinite(value):
        exponent = math.floor(math.log10(abs(value)))
        mantissa = f"{value / 10.0**exponent:.12g}"
        if float(text := f"{mantissa}e{exponent}") == value:
            return text
    return repr(value)


def split_lines(source: str) -> list[str]:
    """Lines with their ends, split as Python's parser counts them."""
    return _LINE.findall(source)


def literal_value(node: ast.expr) -> Value | None:
    """The value of a number, string, boolean, or arithmetic of plain numbers such as ``2**19``; None for the rest."""
    try:
        value = _evaluated(node)
        return value if isinstance(value, str) or math.isfinite(value) else None
    except (ArithmeticError, TypeError, ValueError):  # a complex result is a TypeError
        return None


def _evaluated(node: ast.expr) -> Value:
    if isinstance(node, ast.Constant) and isinstance(node.value, (bool, int, float, str)):
        return node.value
    if not isinstance(node, (ast.UnaryOp, ast.BinOp)) or type(node.op) not in ARITHMETIC:
        raise ValueError
    operands = [node.operand] if isinstance(node, ast.UnaryOp) else [node.left, node.right]
    numbers = [_evaluated(operand) for operand in operands]
    if any(isinstance(number, (bool, str)) for number in numbers):
        raise ValueError
    if isinstance(node.op, ast.Pow) and (abs(float(numbers[0])) > 1e6 or abs(float(numbers[1])) > 64):
        raise ValueError  # 9**9**9 never ends
    value: Value = ARITHMETIC[type(node.op)](*numbers)
    return value


def _parse(source: str, path: str) -> ast.Module:
    try:
        return ast.parse(source)
    except SyntaxError as error:
        raise UsageError(f"{path}:{error.lineno or 1}: not valid Python: {error.msg}") from error
    except ValueError as error:  # a null byte
        raise UsageError(f"{path}: not valid Python: {error}") from error


def _block_lines(source: str, path: str) -> tuple[int, int] | None:
    """Lines of the two markers, None without any. A marker is a comment: the same text in a string does not count."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    comments = [token for token in tokens if token.type == tokenize.COMMENT]
    found = {
        kind: [comment.start[0] for comment in comments if pattern.fullmatch(comment.string)]
        for kind, pattern in _MARKERS.items()
    }
    if not any(found.values()):
        return None
    for kind, lines in found.items():
        if len(lines) > 1:
            raise UsageError(f"{path}:{lines[1]}: second {kind} of the hyperparameter block (first in line {lines[0]})")
    for kind, marker, other in (("start", START, "end"), ("end", END, "start")):
        if not found[kind]:
            line = found[other][0]
            raise UsageError(f"{path}:{line}: the hyperparameter block has no {kind}: the line {marker!r} is missing")
    start, end = found["start"][0], found["end"][0]
    if end < start:
        raise UsageError(f"{path}:{end}: the hyperparameter block ends before it starts (line {start})")
    return start, end


def _check_outside(tree: ast.Module, block: list[ast.stmt], start: int, path: str) -> None:
    """The block is at module level, and its names are not assigned elsewhere."""
    names = {name for node in block for name in _targets(node)}
    for node in tree.body:
        if node.lineno <= start < (node.end_lineno or node.lineno):
            raise UsageError(f"{path}:{start}: the hyperparameter block stands inside line {node.lineno}; move it out")
        if node not in block and (again := names.intersection(_targets(node))):
            raise UsageError(
                f"{path}:{node.lineno}: {min(again)} is assigned outside the hyperparameter block too; keep the block's"
            )


def _targets(node: ast.stmt) -> list[str]:
    match node:
        case ast.Assign(targets=targets):
            pass
        case ast.AnnAssign(target=target) | ast.AugAssign(target=target):
            targets = [target]
        case _:
            targets = []
    return [name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)]


def _entry(node: ast.stmt, lines: list[str], path: str) -> Entry:
    where = f"{path}:{node.lineno}"
    shown = lines[node.lineno - 1].strip()
    match node:
        case (
            ast.Assign(targets=[ast.Name(id=name)], value=expression)
            | ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as expression)
        ):
            pass
        case _:
            raise UsageError(f"{where}: a hyperparameter is one line `NAME = literal`, this is `{shown}`")
    value = literal_value(expression)
    if value is None or expression.lineno != node.lineno or expression.end_lineno != node.lineno:
        raise UsageError(
            f"{where}: {name} is computed or not a plain literal (`{shown}`): write a number, a string, True or False"
        )
    start, end = expression.col_offset, expression.end_col_offset or 0
    text = lines[node.lineno - 1].encode()[start:end].decode()
    return Entry(name, value, node.lineno, start, end, text)
