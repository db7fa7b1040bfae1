"""The forms of a model's answer, derived from the block: a unified diff, or a JSON object.

A grammar (EBNF as vLLM reads it) describes all diffs that change at least one value of the block and nothing else; a
JSON schema describes all objects within the bounds. A server can enforce either while it decodes. Every reply is
checked afterwards, constraints between parameters included.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

from agent.errors import PatchRejected, ReplyRejected, UsageError
from agent.patch.apply import apply_reply
from agent.space.axes import axis_of
from agent.space.block import literal, read_block, split_lines
from agent.space.space import Params, SearchSpace
from agent.types import Param, Value

RATIONALE = 400  # characters
_LISTED = 64  # width of a range of whole numbers up to which the grammar lists all values
_DIGITS = 2  # significant digits of the smallest float of a logarithmic axis
_OBJECT = re.compile(r"\{.*\}", re.DOTALL)


def block_grammar(space: SearchSpace, block: str) -> str:
    """A grammar of answers: a rationale, then one hunk over the whole of ``block`` with at least one changed value."""
    lines = [line.rstrip("\r\n") for line in split_lines(block)]
    params = {p.name: p for p in space.params}
    entries = {e.line - 1: e for e in read_block(block, space.path).values() if e.name in params}
    span = f"@@ -1,{len(lines)} +1,{len(lines)} @@\n"
    head = f"\n\n```diff\n--- a/{space.path}\n+++ b/{space.path}\n{span}"
    rules = [
        f'root ::= "Rationale: " rationale {_quoted(head)} before0 "```"',
        f"rationale ::= [^ \\n] [^\\n]{{0,{RATIONALE - 1}}}",
    ]
    last = max(entries)
    for i, line in enumerate(lines):  # before{i}: no value changed so far; after{i}: one has
        same = _quoted(f" {line}\n")
        rest = f" after{i + 1}" if i + 1 < len(lines) else ""
        change = []
        if entry := entries.get(i):
            raw = line.encode()
            start, end = raw[: entry.start].decode(), raw[entry.end :].decode()
            rules.append(number_rule(f"value{i}", params[entry.name], entry.text, entry.value))
            change = [f"{_quoted(f'-{line}' + chr(10) + f'+{start}')} value{i} {_quoted(end + chr(10))}{rest}"]
        if i <= last:
            rules.append(f"before{i} ::= " + " | ".join([f"{same} before{i + 1}"] * (i < last) + change))
        rules.append(f"after{i} ::= " + " | ".join([same + rest, *change]))
    return "\n".join(rules) + "\n"


def number_rule(name: str, p: Param, like: str = "", but: Value | None = None) -> str:
    """The grammar rule ``name`` for the values of ``p`` except ``but``, in the style of the literal ``like``."""
    if p.low is None or p.high is None or p.power_of_two or (p.kind == "int" and p.high - p.low < _LISTED):
        values = p.choices or axis_of(p).values()
        others = [v for v in values if v != but or isinstance(v, bool) != isinstance(but, bool)]
        return f"{name} ::= " + " | ".join(_quoted(literal(value, like)) for value in others)
    first = math.floor(math.log10(p.low)) if p.log else math.floor(math.log10(p.high - p.low)) - 2
    decimals = 0 if p.kind == "int" else max(1, _DIGITS - 1 - first)
    low, high = math.ceil(p.low * 10**decimals - 1e-6), math.floor(p.high * 10**decimals + 1e-6)
    ranges = [(low, high)]
    if isinstance(but, (int, float)) and abs(but * 10**decimals - round(but * 10**decimals)) < 1e-6:
        gone = round(but * 10**decimals)
        ranges = [(low, min(high, gone - 1)), (max(low, gone + 1), high)]
    options = []
    for start, stop in ranges:
        options += [f'"-" {numeral}' for numeral in _numerals(max(1, -stop), -start, decimals)]
        options += _numerals(max(0, start), stop, decimals)
    return f"{name} ::= " + " | ".join(options)


def _numerals(low: int, high: int, decimals: int) -> list[str]:
    """Alternatives for the numerals of ``low`` to ``high``, both at least 0, in units of the last decimal."""
    found = []
    for width in range(max(len(str(low)), decimals + 1), max(len(str(high)), decimals + 1) + 1):
        start = max(low, 0 if width == decimals + 1 else 10 ** (width - 1))
        stop = min(high, 10**width - 1)
        for digits in _digits(str(start).zfill(width), str(stop).zfill(width)) if start <= stop else ():
            point = ['"."'] if decimals else []
            found.append(" ".join([*digits[: width - decimals], *point, *digits[width - decimals :]]))
    return found


def _digits(low: str, high: str) -> list[list[str]]:
    """Alternatives for the numerals from ``low`` to ``high`` of equal length, as one expression per digit."""
    if set(low) <= {"0"} and set(high) <= {"9"}:
        return [["[0-9]"] * len(low)]
    first, last, rest = int(low[0]), int(high[0]), len(low) - 1
    if first == last:
        return [[f'"{first}"', *tail] for tail in _digits(low[1:], high[1:])]
    found = [[f'"{first}"', *tail] for tail in _digits(low[1:], "9" * rest)]
    if last - first > 1:
        found.append([f"[{first + 1}-{last - 1}]", *["[0-9]"] * rest])
    return found + [[f'"{last}"', *tail] for tail in _digits("0" * rest, high[1:])]


def point_schema(space: SearchSpace, rationale: bool = True) -> dict[str, Any]:
    """The JSON schema of a configuration, with all parameters required."""
    properties: dict[str, Any] = {"rationale": {"type": "string", "maxLength": RATIONALE}} if rationale else {}
    for p in space.params:
        if p.low is None or p.high is None or p.power_of_two:
            properties[p.name] = {"enum": list(p.choices or space.axes[p.name].values())}
        elif p.kind == "int":
            properties[p.name] = {"type": "integer", "minimum": math.ceil(p.low), "maximum": math.floor(p.high)}
        else:
            properties[p.name] = {"type": "number", "minimum": p.low, "maximum": p.high}
    return closed_object(properties)


def closed_object(properties: dict[str, Any]) -> dict[str, Any]:
    """The JSON schema of an object with exactly these properties."""
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def read_diff(space: SearchSpace, block: str, text: str) -> tuple[dict[str, Value], str]:
    """The configuration that the diff in a reply makes of ``block``, and the text after ``Rationale:``.

    Raises:
        ReplyRejected: no diff, a diff of anything but values, or an invalid configuration.
    """
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
    lines = (line.strip() for line in text.splitlines())
    said = (line.partition(":")[2].strip() for line in lines if line.lower().startswith("rationale:"))
    return _checked(space, {name: after[name].value for name in space.names}), next(said, "")


def read_object(space: SearchSpace, text: str) -> tuple[dict[str, Value], str]:
    """The configuration and the rationale in a JSON reply. Raises ReplyRejected if there is no valid one."""
    found = parse_object(text)
    rationale = found.pop("rationale", "")
    return _checked(space, found), str(rationale)


def parse_object(text: str) -> dict[str, Any]:
    """The JSON object in a reply, with or without text around it. Raises ReplyRejected."""
    match = _OBJECT.search(text)
    try:
        found = json.loads(match[0], strict=False) if match else None
    except (ValueError, RecursionError) as error:
        raise ReplyRejected(f"the reply is not JSON: {error}") from None
    if not isinstance(found, dict):
        raise ReplyRejected("the reply holds no JSON object")
    return found


def _checked(space: SearchSpace, params: Params) -> dict[str, Value]:
    if wrong := space.valid(params):
        raise ReplyRejected("; ".join(wrong))
    return space.exact({name: params[name] for name in space.names})


def _quoted(text: str) -> str:
    return json.dumps(text)
