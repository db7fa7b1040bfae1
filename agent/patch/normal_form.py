"""Normal form of a Python program, to detect repeated edits, edits without effect and edits of seeds only.

The normal form is a hash of the syntax tree. The tree ignores comments, formatting, docstrings and other bare
constants, the spelling of numbers (``2**19`` is ``524288``), needless ``pass``, and the order of keyword arguments that
are names or constants. Names count: a renamed variable is another program. Hashes of different versions of Python
differ.
"""

from __future__ import annotations

import ast
import hashlib
import operator
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

BYTE_ORDER_MARK = "\ufeff"  # Python reads files with this mark; ast.parse refuses strings with it
_SEED_NAME = re.compile(r"(?:^|_)(?:seeds?|random_state)$", re.IGNORECASE)
_SEED_CALLS = {
    "manual_seed", "manual_seed_all", "seed", "seed_all", "set_seed", "seed_everything", "default_rng", "RandomState",
    "Random", "PRNGKey", "SeedSequence",
}  # fmt: skip
_LOSS_NAME = re.compile(r"loss|entropy", re.IGNORECASE)
_MAX_FOLDED = 2**128  # larger numbers are not folded
_OPERATIONS: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv, ast.Mod: operator.mod, ast.Pow: operator.pow, ast.LShift: operator.lshift,
    ast.RShift: operator.rshift, ast.BitAnd: operator.and_, ast.BitOr: operator.or_, ast.BitXor: operator.xor,
}  # fmt: skip


@lru_cache(maxsize=32)  # many edits are compared with the same program
def normal_form(source: str) -> str:
    """The normal form of a program: 64 hexadecimal digits. Raises SyntaxError."""
    return _hash(_tree(source))


def program_of(source: str) -> str:
    """The normal form of a program; "" for a text that is not Python."""
    try:
        return normal_form(source)
    except SyntaxError:
        return ""


def only_seed_changes(before: str, after: str) -> bool:
    """Whether two programs differ only in the values of seeds and in calls that set seeds. Raises SyntaxError."""
    if normal_form(before) == normal_form(after):
        return False
    return _hash(_tree(before, seeds=False)) == _hash(_tree(after, seeds=False))


def changes_loss(before: str, after: str) -> bool:
    """Whether two programs differ in a statement that names a loss; False for a text that is not Python."""
    try:
        return _loss_statements(before) != _loss_statements(after)
    except SyntaxError:
        return False


def _loss_statements(source: str) -> Counter[str]:
    """Statements without a body in which a name contains "loss" or "entropy", in normal form."""
    simple = (node for node in ast.walk(_tree(source)) if isinstance(node, ast.stmt) and not hasattr(node, "body"))
    return Counter(
        ast.dump(node) for node in simple if any(_LOSS_NAME.search(_last_name(part)) for part in ast.walk(node))
    )


def tree_size(source: str) -> int:
    """Size of a program: number of nodes of the syntax tree in normal form. Raises SyntaxError."""
    skipped = (ast.expr_context, ast.operator, ast.unaryop, ast.boolop, ast.cmpop)
    return sum(not isinstance(node, skipped) for node in ast.walk(_tree(source)))


@contextmanager
def _limits_of_parser() -> Iterator[None]:
    """Raises SyntaxError for a text that the parser or a walk over its tree cannot handle."""
    try:
        yield
    except (ValueError, RecursionError, MemoryError) as error:
        raise SyntaxError(f"not parsable: {error}") from None


@_limits_of_parser()
def parsed(source: str) -> ast.Module:
    """The syntax tree. Raises SyntaxError, also for a text that the parser cannot handle."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ast.parse(source.removeprefix(BYTE_ORDER_MARK))


@_limits_of_parser()
def _tree(source: str, seeds: bool = True) -> ast.AST:
    """The syntax tree in normal form; without ``seeds``, all seeds are equal and calls that set seeds are gone."""
    tree = parsed(source)
    if not seeds:
        _forget_seeds(tree)
    keep_docstrings = any(_last_name(node) == "__doc__" for node in ast.walk(tree))
    return _Normal(keep_docstrings).visit(tree)


@_limits_of_parser()
def _hash(tree: ast.AST) -> str:
    return hashlib.sha256(ast.dump(tree).encode("utf-8", "surrogatepass")).hexdigest()


def _number(node: ast.AST) -> int | float | None:
    value = node.value if isinstance(node, ast.Constant) else None
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


class _Normal(ast.NodeTransformer):
    """Folds arithmetic of numbers and removes statements without effect."""

    def __init__(self, keep_docstrings: bool) -> None:
        self.keep_docstrings = keep_docstrings

    def visit(self, node: ast.AST) -> ast.AST:
        node = super().visit(node)
        for name in ("body", "orelse", "finalbody"):
            body = getattr(node, name, None)
            if isinstance(body, list):
                kept = [item for item in body if not self._is_idle(item)]
                needed = name == "body" and not isinstance(node, ast.Module)
                setattr(node, name, kept or ([ast.Pass()] if needed else []))
        return node

    def _is_idle(self, statement: ast.AST) -> bool:
        match statement:
            case ast.Expr(value=ast.Constant(value=value)):
                return not (self.keep_docstrings and isinstance(value, str))
        return isinstance(statement, ast.Pass)

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        node.kind = None  # u"text" is "text"
        return node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        if all(word.arg and isinstance(word.value, ast.Constant | ast.Name) for word in node.keywords):
            node.keywords.sort(key=lambda word: word.arg or "")
        return node

    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.AST:
        self.generic_visit(node)
        value = _number(node.operand)
        if value is None or not isinstance(node.op, ast.USub | ast.UAdd):
            return node
        return ast.Constant(-value if isinstance(node.op, ast.USub) else value)

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        self.generic_visit(node)
        left, right = _number(node.left), _number(node.right)
        if left is None or right is None:
            return node
        too_large = not abs(right) <= 1024 or (isinstance(left, int) and abs(left) > _MAX_FOLDED)
        if isinstance(node.op, ast.Pow | ast.LShift) and too_large:
            return node
        try:
            value = _OPERATIONS[type(node.op)](left, right)
        except (KeyError, ArithmeticError, ValueError, TypeError):  # TypeError: bits of a float
            return node
        small = isinstance(value, float) or (isinstance(value, int) and abs(value) <= _MAX_FOLDED)
        return ast.Constant(value) if small else node


def _forget_seeds(tree: ast.AST) -> None:
    """Replace every seed by the same constant, and every statement that sets a seed by one without effect."""
    zero = ast.Constant(0)

    def is_seed(name: str) -> bool:
        return _SEED_NAME.search(name) is not None

    for node in ast.walk(tree):
        match node:
            case ast.Expr(value=ast.Call(func=function)) if _last_name(function) in _SEED_CALLS:
                node.value = zero
            case ast.Call(func=function) if _last_name(function) in _SEED_CALLS:
                node.args, node.keywords = [], []
            case ast.Call(keywords=keywords):
                for keyword in keywords:
                    keyword.value = zero if keyword.arg and is_seed(keyword.arg) else keyword.value
            case ast.Assign(targets=targets) if all(is_seed(_last_name(target)) for target in targets):
                node.value = zero
            case ast.AnnAssign(target=target, value=ast.expr()) if is_seed(_last_name(target)):
                node.value = zero
            case ast.Dict(keys=keys, values=values):
                named = [isinstance(key, ast.Constant) and is_seed(str(key.value)) for key in keys]
                node.values = [zero if seed else value for seed, value in zip(named, values, strict=True)]
            case ast.arguments(defaults=defaults, kw_defaults=kw_defaults):
                positional = [*node.posonlyargs, *node.args][-len(defaults) :] if defaults else []
                node.defaults = [zero if is_seed(a.arg) else d for a, d in zip(positional, defaults, strict=True)]
                only = zip(node.kwonlyargs, kw_defaults, strict=True)
                node.kw_defaults = [zero if default and is_seed(arg.arg) else default for arg, default in only]


def _last_name(node: ast.AST) -> str:
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
        case ast.Subscript(slice=ast.Constant(value=key)):
            return str(key)
    return ""
