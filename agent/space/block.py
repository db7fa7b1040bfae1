"""The marked hyperparameter block of a source file: read its values, write new ones, change nothing else.

The block stands between two comment lines and holds one ``NAME = literal  # comment`` a line::

    # --- hyperparameters ---
    DEPTH = 8
    TOTAL_BATCH_SIZE = 2**19  # tokens an optimiser step
    # --- end of hyperparameters ---

A file without the markers may be used all the same when the wanted names are known: then each of them must be assigned
a literal exactly once at module level. The source is parsed, never run.
"""

from __future__ import annotations

import ast
import difflib
import io
import math
import operator
import re
import tokenize
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from agent.errors import UsageError
from agent.types import Value

START = "# --- hyperparameters ---"
END = "# --- end of hyperparameters ---"

_START = re.compile(r"#\s*-+\s*hyperparameters\s*-+\s*", re.IGNORECASE)
_END = re.compile(r"#\s*-+\s*end of hyperparameters\s*-+\s*", re.IGNORECASE)
_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")  # as the parser counts lines; str.splitlines splits at more
_BINARY: dict[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Pow: operator.pow,
}


@dataclass(frozen=True)
class Entry:
    """One assignment: where its literal stands (``line`` from 1; ``start`` and ``end`` in bytes of that line)."""

    name: str
    value: Value
    line: int
    start: int
    end: int
    text: str


def read_block(source: str, path: str = "train.py", names: Iterable[str] | None = None) -> dict[str, Entry]:
    """The entries of the block in file order; with ``names``, exactly those, found anywhere if there are no markers.

    Raises:
        UsageError: no block, two blocks, a line that is not ``NAME = literal``, a name that is missing or assigned
            twice. The message gives ``path`` and line.
    """
    tree = _parse(source, path)
    span = _block_lines(source, path)
    if span is None:
        if names is None:
            raise UsageError(f"{path}: no hyperparameter block; mark it with the lines {START!r} and {END!r}")
        wanted = set(names)
        nodes: list[ast.stmt] = [node for node in tree.body if wanted.intersection(_targets(node))]
    else:
        nodes = [node for node in tree.body if span[0] < node.lineno <= span[1]]
        _check_surroundings(tree, span, path)
    lines = split_lines(source)
    entries: dict[str, Entry] = {}
    for node in nodes:
        entry = _entry(node, lines, path)
        if entry.name in entries:
            first = entries[entry.name].line
            raise UsageError(f"{path}:{entry.line}: {entry.name} is assigned twice (first in line {first}); keep one")
        entries[entry.name] = entry
    return entries if names is None else _exactly(entries, names, path, "block" if span else "file")


def render_block(source: str, values: Mapping[str, Value], path: str = "train.py") -> str:
    """``source`` with the literals of ``values`` replaced: one changed line a value that differs, nothing else.

    Raises:
        UsageError: as ``read_block``.
    """
    entries = read_block(source, path, names=values)
    before = split_lines(source)
    lines = list(before)
    for name, value in values.items():
        entry = entries[name]
        if entry.value == value and isinstance(entry.value, (bool, str)) == isinstance(value, (bool, str)):
            continue
        line = before[entry.line - 1]
        new = literal(value, entry.text)
        neighbours = before[max(entry.line - 2, 0) : entry.line - 1] + before[entry.line : entry.line + 1]
        table = line.find("#") in (other.find("#") for other in neighbours)
        rest = _tail(line.encode()[entry.end :].decode(), len(entry.text) - len(new), table)
        lines[entry.line - 1] = line.encode()[: entry.start].decode() + new + rest
    return "".join(lines)


def block_text(source: str, path: str = "train.py") -> str:
    """The lines of the block, markers included; empty if the file has no markers. Raises UsageError."""
    span = _block_lines(source, path)
    return "".join(split_lines(source)[span[0] - 1 : span[1]]) if span else ""


def literal(value: Value, like: str = "") -> str:
    """``value`` as Python, in the manner of the literal ``like``: ``2**k``, ``1_000``, ``1e-3``, the same quotes."""
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


def _parse(source: str, path: str) -> ast.Module:
    try:
        return ast.parse(source)
    except SyntaxError as error:
        raise UsageError(f"{path}:{error.lineno or 1}: not valid Python: {error.msg}") from error
    except ValueError as error:  # a null byte
        raise UsageError(f"{path}: not valid Python: {error}") from error


def _block_lines(source: str, path: str) -> tuple[int, int] | None:
    """Lines of the two markers. Markers are comments, so the same words in a string do not count."""
    starts: list[int] = []
    ends: list[int] = []
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            if _START.fullmatch(token.string):
                starts.append(token.start[0])
            elif _END.fullmatch(token.string):
                ends.append(token.start[0])
    if not starts and not ends:
        return None
    for kind, found, other in (("start", starts, ends), ("end", ends, starts)):
        if len(found) > 1:
            raise UsageError(f"{path}:{found[1]}: second {kind} of the hyperparameter block (first in line {found[0]})")
        if not found:
            marker = START if kind == "start" else END
            raise UsageError(
                f"{path}:{other[0]}: the hyperparameter block has no {kind}: the line {marker!r} is missing"
            )
    if ends[0] < starts[0]:
        raise UsageError(f"{path}:{ends[0]}: the hyperparameter block ends before it starts (line {starts[0]})")
    return starts[0], ends[0]


def _check_surroundings(tree: ast.Module, span: tuple[int, int], path: str) -> None:
    """The block is at module level, and nothing after it assigns its names again."""
    block = [node for node in tree.body if span[0] < node.lineno <= span[1]]
    names = {name for node in block for name in _targets(node)}
    for node in tree.body:
        if node.lineno <= span[0] < (node.end_lineno or node.lineno):
            raise UsageError(
                f"{path}:{span[0]}: the hyperparameter block stands inside line {node.lineno}; move it out"
            )
        if node not in block and (again := names.intersection(_targets(node))):
            raise UsageError(
                f"{path}:{node.lineno}: {min(again)} is assigned outside the hyperparameter block too; keep the block's"
            )


def _targets(node: ast.stmt) -> list[str]:
    targets: list[ast.expr] = []
    if isinstance(node, ast.Assign):
        targets = node.targets
    elif isinstance(node, (ast.AnnAssign, ast.AugAssign)):
        targets = [node.target]
    return [name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)]


def _entry(node: ast.stmt, lines: list[str], path: str) -> Entry:
    where = f"{path}:{node.lineno}"
    shown = lines[node.lineno - 1].strip()
    target = node.targets[0] if isinstance(node, ast.Assign) and len(node.targets) == 1 else None
    target = node.target if isinstance(node, ast.AnnAssign) else target
    expression = node.value if isinstance(node, (ast.Assign, ast.AnnAssign)) else None
    if not isinstance(target, ast.Name) or expression is None:
        raise UsageError(f"{where}: a hyperparameter is one line `NAME = literal`, this is `{shown}`")
    value = literal_value(expression)
    if value is None or expression.lineno != node.lineno or expression.end_lineno != node.lineno:
        raise UsageError(
            f"{where}: {target.id} is computed or not a plain literal (`{shown}`): "
            f"write a number, a string, True or False"
        )
    start, end = expression.col_offset, expression.end_col_offset or 0
    text = lines[node.lineno - 1].encode()[start:end].decode()
    return Entry(target.id, value, node.lineno, start, end, text)


def literal_value(node: ast.expr) -> Value | None:
    """The value of a number, string, boolean, or arithmetic of plain numbers such as ``2**19``; None for the rest."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, (bool, int, float, str)) else None
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.USub, ast.UAdd)):
        inner = literal_value(node.operand)
        if isinstance(inner, (bool, str)) or inner is None:
            return None
        return -inner if isinstance(node.op, ast.USub) else inner
    if isinstance(node, ast.BinOp) and type(node.op) in _BINARY:
        left, right = literal_value(node.left), literal_value(node.right)
        if isinstance(left, (bool, str)) or isinstance(right, (bool, str)) or left is None or right is None:
            return None
        if isinstance(node.op, ast.Pow) and (abs(right) > 64 or abs(left) > 1e6):  # 9**9**9 would never end
            return None
        try:
            value = _BINARY[type(node.op)](left, right)
        except (ArithmeticError, ValueError):
            return None
        return value if isinstance(value, (int, float)) and math.isfinite(value) else None
    return None


def _exactly(entries: dict[str, Entry], names: Iterable[str], path: str, place: str) -> dict[str, Entry]:
    found = {}
    for name in names:
        if name not in entries:
            near = difflib.get_close_matches(name, entries, n=1)
            hint = f"; did it become {near[0]} (line {entries[near[0]].line})?" if near else ""
            line = min((entry.line for entry in entries.values()), default=1)
            raise UsageError(f"{path}:{line}: hyperparameter {name} is not assigned in the {place}{hint}")
        found[name] = entries[name]
    return found


def _tail(rest: str, shorter: int, table: bool) -> str:
    """What follows the literal. A comment that stands in a column with others stays in it, if there is room."""
    match = re.match(r"( {2,})#", rest)
    if not match or not (table or len(match[1]) > 2):
        return rest
    return " " * max(2, len(match[1]) + shorter) + rest[len(match[1]) :]
