"""The forms in which a model may answer with a configuration, made from the block: a diff or a JSON object.

For a server that holds a form while decoding there is a grammar (EBNF that vLLM reads) of all diffs that change at
least one value of the block and leave everything else alone, and a schema of all objects within the bounds. The same is
checked afterwards, wherever the reply comes from. Constraints between parameters are in neither; the check holds them.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any

from agent.errors import PatchRejected, ReplyRejected, UsageError
from agent.patch.apply import apply_reply
from agent.space.block import literal, read_block, split_lines
from agent.space.space import SearchSpace
from agent.types import Param, Value

RATIONALE = 400  # characters
_LISTED = 64  # values up to which a whole number is spelled out
_DIGITS = 2  # significant ones at the lower end of a float
_OBJECT = re.compile(r"\{.*\}", re.DOTALL)


def block_grammar(space: SearchSpace, block: str) -> str:
    """A grammar of answers: a rationale, then one hunk over the whole of ``block`` with at least one changed value."""
    lines = [line.rstrip("\r\n") for line in split_lines(block)]
    entries = {entry.line - 1: entry for entry in read_block(block, space.path).values()}
    params = {p.name: p for p in space.params}
    span = f"@@ -1,{len(lines)} +1,{len(lines)} @@\n"
    head = f"\n\n```diff\n--- a/{space.path}\n+++ b/{space.path}\n{span}"
    rules = [
        f'root ::= "Rationale: " rationale {_quoted(head)} before0 "```"',
        f"rationale ::= [^ \\n] [^\\n]{{0,{RATIONALE - 1}}}",
    ]
    last = max(i for i, entry in entries.items() if entry.name in params)
    for i, line in enumerate(lines):
        same = _quoted(f" {line}\n")
        rest = f" after{i + 1}" if i + 1 < len(lines) else ""
        entry = entries.get(i)
        change = ""
        if entry is not None and entry.name in params:
            raw = line.encode()
            head, tail = raw[: entry.start].decode(), raw[entry.end :].decode()
            rules += number_rules(f"value{i}", params[entry.name], entry.text, entry.value)
            change = f"{_quoted(f'-{line}' + chr(10) + f'+{head}')} value{i} {_quoted(tail + chr(10))}{rest}"
        if i <= last:
            options = [f"{same} before{i + 1}"] if i < last else []
            rules.append(f"before{i} ::= " + " | ".join(options + ([change] if change else [])))
        rules.append(f"after{i} ::= " + " | ".join([same + rest, *([change] if change else [])]))
    return "\n".join(rules) + "\n"


def number_rules(name: str, p: Param, like: str = "", but: Value | None = None) -> list[str]:
    """Rules for the values of ``p`` within its bounds, ``but`` not this one; the first is called ``name``."""
    if p.kind == "categorical":
        choices = [c for c in p.choices if c != but or isinstance(c, bool) != isinstance(but, bool)]
        return [f"{name} ::= " + " | ".join(_quoted(literal(choice, like)) for choice in choices)]
    assert p.low is not None
    assert p.high is not None
    if p.power_of_two or (p.kind == "int" and p.high - p.low < _LISTED):
        return [f"{name} ::= " + " | ".join(_quoted(literal(value, like)) for value in _whole(p) if value != but)]
    decimals = 0 if p.kind == "int" else decimals_of(p)
    low, high = math.ceil(p.low * 10**decimals - 1e-6), math.floor(p.high * 10**decimals + 1e-6)
    ranges = [(low, high)]
    if isinstance(but, (int, float)) and abs(but * 10**decimals - round(but * 10**decimals)) < 1e-6:
        gone = round(but * 10**decimals)
        ranges = [(low, min(high, gone - 1)), (max(low, gone + 1), high)]
    rules: list[str] = []
    options = []
    for k, (start, stop) in enumerate(ranges):
        if start <= stop and start < 0:
            options.append(f'"-" {_digits(f"{name}m{k}", max(1, -stop), -start, decimals, rules)}')
        if start <= stop and stop >= 0:
            options.append(_digits(f"{name}p{k}", max(0, start), stop, decimals, rules))
    return [f"{name} ::= " + " | ".join(options), *rules]


def decimals_of(p: Param) -> int:
    """Decimals with which a float is written, so that the smallest one of a logarithmic axis has two digits."""
    assert p.low is not None
    assert p.high is not None
    if p.log:
        return max(1, _DIGITS - 1 - math.floor(math.log10(p.low)))
    return max(1, _DIGITS + 1 - math.floor(math.log10(p.high - p.low)))


def _whole(p: Param) -> list[int]:
    assert p.low is not None
    assert p.high is not None
    if p.power_of_two:
        return [2**k for k in range(math.ceil(math.log2(p.low) - 1e-9), math.floor(math.log2(p.high) + 1e-9) + 1)]
    return list(range(math.ceil(p.low), math.floor(p.high) + 1))


def _digits(name: str, low: int, high: int, decimals: int, rules: list[str]) -> str:
    """The name of a rule for ``low`` to ``high``, both at least 0, in units of the last decimal."""
    options = []
    for width in range(max(len(str(low)), decimals + 1), max(len(str(high)), decimals + 1) + 1):
        first = 0 if width == decimals + 1 else 10 ** (width - 1)
        start, stop = max(low, first), min(high, 10**width - 1)
        if start <= stop:
            options.append(
                _between(f"{name}w{width}", str(start).zfill(width), str(stop).zfill(width), decimals, rules)
            )
    rules.append(f"{name} ::= " + " | ".join(options))
    return name


def _between(name: str, low: str, high: str, decimals: int, rules: list[str]) -> str:
    """An expression for the numerals from ``low`` to ``high``, of equal length; it may add rules."""
    point = '"." ' if decimals and len(low) == decimals else ""
    if not low:
        return '""'
    if set(low) == {"0"} and set(high) == {"9"}:
        whole, part = len(low) - min(decimals, len(low)), min(decimals, len(low))
        return " ".join([*["[0-9]"] * whole, *(['"."'] if part and (whole or point) else []), *["[0-9]"] * part])
    first, last = int(low[0]), int(high[0])
    ends = [(first, low[1:], high[1:])] if first == last else [
        (first, low[1:], "9" * len(low[1:])), (last, "0" * len(low[1:]), high[1:])
    ]  # fmt: skip
    options = []
    for k, (digit, start, stop) in enumerate(ends):
        options.append(f'{point}"{digit}" {_between(f"{name}{k}", start, stop, decimals, rules)}'.removesuffix(' ""'))
    if last - first > 1:
        rest = len(low) - 1
        free = _between(f"{name}f", "0" * rest, "9" * rest, decimals, rules)
        options.append(f"{point}[{first + 1}-{last - 1}] {free}".removesuffix(' ""'))
    rules.append(f"{name} ::= " + " | ".join(options))
    return name


def point_schema(space: SearchSpace, rationale: bool = True) -> dict[str, Any]:
    """The JSON schema of a configuration, all parameters required."""
    properties: dict[str, Any] = {"rationale": {"type": "string", "maxLength": RATIONALE}} if rationale else {}
    for p in space.params:
        if p.kind == "categorical":
            properties[p.name] = {"enum": list(p.choices)}
        elif p.power_of_two:
            properties[p.name] = {"enum": _whole(p)}
        elif p.kind == "int":
            assert p.low is not None
            assert p.high is not None
            properties[p.name] = {"type": "integer", "minimum": math.ceil(p.low), "maximum": math.floor(p.high)}
        else:
            properties[p.name] = {"type": "number", "minimum": p.low, "maximum": p.high}
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def read_diff(space: SearchSpace, block: str, text: str) -> dict[str, Value]:
    """The configuration that a diff makes of ``block``. Raises ReplyRejected: no diff, or one that does more."""
    before = read_block(block, space.path)
    try:
        after = read_block(apply_reply(block, text, space.path), space.path)
    except (PatchRejected, UsageError, SyntaxError) as error:
        raise ReplyRejected(f"no diff of the hyperparameter block: {error}") from None
    if list(before) != list(after):
        raise ReplyRejected("the diff adds, removes or moves lines of the block; it may only change values")
    for name in before:
        if name not in space.names and before[name].value != after[name].value:
            raise ReplyRejected(f"the diff changes {name}, which is not searched")
    return checked(space, {name: after[name].value for name in space.names})


def read_object(space: SearchSpace, text: str) -> tuple[dict[str, Value], str]:
    """The configuration and the rationale in a JSON object. Raises ReplyRejected."""
    found = parse_object(text)
    rationale = found.pop("rationale", "")
    odd = [name for name, value in found.items() if not isinstance(value, (int, float, str, bool))]
    if odd:
        raise ReplyRejected(f"{odd[0]} is no number, string or boolean")
    return checked(space, found), str(rationale)


def parse_object(text: str) -> dict[str, Any]:
    """The JSON object in a reply, with or without words around it. Raises ReplyRejected."""
    match = _OBJECT.search(text)
    try:
        found = json.loads(match[0], strict=False) if match else None
    except (ValueError, RecursionError) as error:
        raise ReplyRejected(f"the reply is not JSON: {error}") from None
    if not isinstance(found, dict):
        raise ReplyRejected("the reply holds no JSON object")
    return found


def checked(space: SearchSpace, params: Mapping[str, Value]) -> dict[str, Value]:
    """``params`` with the types of the space. Raises ReplyRejected: out of bounds, or a constraint does not hold."""
    if wrong := space.valid(params):
        raise ReplyRejected("; ".join(wrong))
    return {p.name: _typed(p, params[p.name]) for p in space.params}


def _typed(p: Param, value: Value) -> Value:
    if p.kind == "categorical":
        return next(c for c in p.choices if c == value and isinstance(c, bool) == isinstance(value, bool))
    assert not isinstance(value, str)
    return int(value) if p.kind == "int" else float(value)


def _quoted(text: str) -> str:
    return json.dumps(text)
