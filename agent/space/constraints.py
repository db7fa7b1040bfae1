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
    def compiled(*terms: ast.expr) -> list[Evaluate]:
        return [_compile(term, text) for term in terms]

    match node:
        case ast.Constant(value=bool() | int() | float() | str() as value):
            return lambda params: value
        case ast.Name(id=name):
            return lambda params: params[name]
        case ast.UnaryOp(op=op, operand=operand) if type(op) in _OPERATORS:
            apply, (part,) = _OPERATORS[type(op)], compiled(operand)
            return lambda params: apply(part(params))
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
            apply, (one, other) = _OPERATORS[type(op)], compiled(left, right)
            return lambda params: apply(one(params), other(params))
        case ast.BoolOp(op=op, values=values):
            join, parts = all if isinstance(op, ast.And) else any, compiled(*values)
            return lambda params: join(part(params) for part in parts)
        case ast.Compare(left=left, ops=ops, comparators=others) if all(type(op) in _OPERATORS for op in ops):
            tests, parts = [_OPERATORS[type(op)] for op in ops], compiled(left, *others)
            return lambda params: all(
                test(one(params), other(params)) for test, one, other in zip(tests, parts, parts[1:], strict=False)
            )
    raise ValueError(
        f"`{text}`: `{ast.unparse(node)}` is not allowed; use names, numbers, + - * / // % ** and comparisons"
    )
