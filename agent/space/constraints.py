"""Constraints between hyperparameters, such as ``TOTAL_BATCH_SIZE >= DEVICE_BATCH_SIZE * 2048``.

The text is Python's notation for comparisons and arithmetic, parsed with an allow-list and turned into closures;
nothing is ever evaluated as code.
"""

from __future__ import annotations

import ast
import difflib
import math
import operator
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from agent.types import Value

Evaluate = Callable[[Mapping[str, Value]], Any]

_ARITHMETIC: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: lambda a, b: math.pow(a, b),  # in floating point, so that a tower of powers overflows instead of hanging
}
_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}


@dataclass(frozen=True)
class Constraint:
    """A condition that every configuration must meet. ``names`` are the parameters it speaks of."""

    text: str
    names: tuple[str, ...]
    _evaluate: Evaluate

    def holds(self, params: Mapping[str, Value]) -> bool:
        """Whether ``params`` meet it. What cannot be computed (division by zero, overflow) does not hold."""
        try:
            return bool(self._evaluate(params))
        except (ArithmeticError, ValueError, TypeError):
            return False


def parse_constraint(text: str, names: Iterable[str]) -> Constraint:
    """Parse ``text``, whose names must be among ``names``.

    Raises:
        ValueError: not a comparison, or something outside the allow-list. The message quotes the part.
    """
    known = list(names)
    try:
        body = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError) as error:
        raise ValueError(f"`{text}` is not a comparison: {getattr(error, 'msg', error)}") from error
    if not isinstance(body, (ast.Compare, ast.BoolOp, ast.UnaryOp)):
        raise ValueError(f"`{text}` is not a comparison; write for example `A >= B * 2`")
    used = [node.id for node in ast.walk(body) if isinstance(node, ast.Name)]
    for name in used:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]}?" if near else f"; known are {', '.join(known)}"
            raise ValueError(f"`{text}` names {name}, which is not a hyperparameter{hint}")
    if not used:
        raise ValueError(f"`{text}` names no hyperparameter")
    return Constraint(text, tuple(dict.fromkeys(used)), _compile(body, text))


def _compile(node: ast.expr, text: str) -> Evaluate:
    if isinstance(node, ast.Constant) and isinstance(node.value, (bool, int, float, str)):
        value = node.value
        return lambda params: value
    if isinstance(node, ast.Name):
        name = node.id
        return lambda params: params[name]
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.USub, ast.Not)):
        inner = _compile(node.operand, text)
        change: Callable[[Any], Any] = operator.neg if isinstance(node.op, ast.USub) else operator.not_
        return lambda params: change(inner(params))
    if isinstance(node, ast.BinOp) and type(node.op) in _ARITHMETIC:
        combine = _ARITHMETIC[type(node.op)]
        first, second = _compile(node.left, text), _compile(node.right, text)
        return lambda params: combine(first(params), second(params))
    if isinstance(node, ast.BoolOp):
        parts = [_compile(value, text) for value in node.values]
        join = all if isinstance(node.op, ast.And) else any
        return lambda params: join(part(params) for part in parts)
    if isinstance(node, ast.Compare) and all(type(op) in _COMPARE for op in node.ops):
        terms = [_compile(term, text) for term in (node.left, *node.comparators)]
        tests = [_COMPARE[type(op)] for op in node.ops]
        return lambda params: all(
            test(left(params), right(params)) for test, left, right in zip(tests, terms, terms[1:], strict=False)
        )
    raise ValueError(
        f"`{text}`: `{ast.unparse(node)}` is not allowed; use names, numbers, + - * / // % ** and comparisons"
    )
