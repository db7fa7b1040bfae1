"""Constraints between hyperparameters, such as ``TOTAL_BATCH_SIZE >= DEVICE_BATCH_SIZE * 2048``.

A constraint is written as a Python comparison. It is parsed with an allow-list of operators and turned into closures;
nothing is evaluated as code.
"""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from agent.errors import nearest
from agent.space.block import ARITHMETIC
from agent.types import Value

Evaluate = Callable[[Mapping[str, Value]], Any]

_OPERATORS: dict[type[ast.AST], Callable[..., Any]] = {
    **ARITHMETIC,
    ast.Not: operator.not_,
    ast.Mod: operator.mod,
    ast.Pow: math.pow,  # in floats a tower of powers overflows; in integers it hangs
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}


@dataclass(frozen=True)
class Constraint:
    """A condition that every configuration must satisfy."""

    text: str
    names: tuple[str, ...]  # parameters in ``text``
    _evaluate: Evaluate

    def holds(self, params: Mapping[str, Value]) -> bool:
        """Whether ``params`` satisfy the constraint; False where it cannot be computed (division by zero, overflow)."""
        try:
            return bool(self._evaluate(params))
        except (ArithmeticError, ValueError, TypeError):
            return False


def parse_constraint(text: str, names: Iterable[str]) -> Constraint:
    """Parse ``text``, which may use ``names``.

    Raises:
        ValueError: ``text`` is no comparison, or a part of it is not allowed. The message quotes the part.
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
            raise ValueError(f"`{text}` names {name}, which is not a hyperparameter.{nearest(name, known)}")
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
    if isinstance(node, (ast.UnaryOp, ast.BinOp)) and type(node.op) in _OPERATORS:
        apply = _OPERATORS[type(node.op)]
        operands = [node.operand] if isinstance(node, ast.UnaryOp) else [node.left, node.right]
        parts = [_compile(operand, text) for operand in operands]
        return lambda params: apply(*(part(params) for part in parts))
    if isinstance(node, ast.BoolOp):
        parts = [_compile(value, text) for value in node.values]
        join = all if isinstance(node.op, ast.And) else any
        return lambda params: join(part(params) for part in parts)
    if isinstance(node, ast.Compare) and all(type(op) in _OPERATORS for op in node.ops):
        parts = [_compile(term, text) for term in (node.left, *node.comparators)]
        tests = [_OPERATORS[type(op)] for op in node.ops]
        return lambda params: all(
            test(left(params), right(params)) for test, left, right in zip(tests, parts, parts[1:], strict=False)
        )
    raise ValueError(
        f"`{text}`: `{ast.unparse(node)}` is not allowed; use names, numbers, + - * / // % ** and comparisons"
    )
