"""What a model is told about a search, in the units of train.py."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations

import numpy as np

from agent.proposers.search.base import Method, Terms, Told
from agent.proposers.search.cma import CmaEs
from agent.space.axes import short
from agent.space.space import SearchSpace
from agent.types import Param, Value

BEST = 5
LATEST = 20
CORRELATIONS = 6
WEAK = 0.15  # correlations below this say nothing


def show(value: Value) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def row(space: SearchSpace, params: Mapping[str, Value]) -> str:
    """The values as cells of a table, in the order of the space."""
    return "".join(f" {show(params[name])} |" for name in space.names)


def bounds(space: SearchSpace) -> str:
    """One line a parameter, then the constraints."""
    lines = [f"- {p.name}: {_range(p)}" for p in space.params]
    return "\n".join([*lines, *(f"- always: `{c.text}`" for c in space.constraints)])


def _range(p: Param) -> str:
    if p.kind == "categorical":
        return "one of " + ", ".join(map(str, p.choices))
    assert p.low is not None
    assert p.high is not None
    kind = "power of two" if p.power_of_two else "whole number" if p.kind == "int" else "number"
    return f"{kind}, {short(p.low)} to {short(p.high)}" + (", logarithmic" if p.log else "")


def table(
    space: SearchSpace,
    told: Iterable[Told],
    terms: Terms,
    others: Mapping[str, Iterable[Mapping[str, Value]]] = {},
) -> str:
    """Results with their configurations; a failure shows its status and memory instead of a value.

    ``others`` are configurations without a result, by what stands in its place.
    """
    head = "| result |" + "".join(f" {name} |" for name in space.names)
    rows = [f"| {_result(t, terms)} |{row(space, t.params)}" for t in told]
    rows += [f"| {label} |{row(space, params)}" for label, points in others.items() for params in points]
    return "\n".join([head, "|---" * (space.dimensions + 1) + "|", *rows]) if rows else "None yet."


def latest(method: Method, count: int = LATEST) -> str:
    """Table of the latest results, the configurations that are being tried, and where the search started."""
    start = [] if any(t.key == method.space.key(method.baseline) for t in method.told) else [method.baseline]
    running = [suggestion.params for suggestion in method.open.values()]
    return table(method.space, method.told[-count:], method.terms, {"running": running, "not measured again": start})


def _result(told: Told, terms: Terms) -> str:
    if told.value is not None:
        return f"{terms.shown(told.value):.5f}"
    return told.status + (f" ({told.memory_gb:.1f} GB)" if told.memory_gb else "")


def wording(method: Method) -> dict[str, str]:
    """What every prompt says of the user's metric and notes."""
    terms = method.terms
    notes = terms.notes or "Nothing in particular: a better result."
    return {"metric": terms.metric, "better": terms.better, "notes": notes}


def best(told: Sequence[Told], count: int = BEST) -> list[Told]:
    good = [t for t in told if t.value is not None]
    return sorted(good, key=lambda t: t.value or 0.0)[:count]


def state(method: CmaEs, suggestion: Mapping[str, Value]) -> str:
    """Mean, step and next suggestion of CMA-ES, its strongest correlations in words, and its view of the choices."""
    space, gaussian = method.space, method.gaussian
    lines = []
    if gaussian is not None:
        deviation = gaussian.step * np.sqrt(np.diag(gaussian.covariance))
        lines += ["| parameter | mean | one step, low to high | next suggestion |", "|---|---|---|---|"]
        for k, i in enumerate(method.numeric):
            axis, mean = space.axes[i], float(gaussian.mean[k])
            low, middle, high = (show(axis.decode(mean + s * float(deviation[k]))) for s in (-1, 0, 1))
            lines.append(f"| {axis.param.name} | {middle} | {low} to {high} | {show(suggestion[axis.param.name])} |")
        lines += ["", *correlations(method)]
    for i, p in zip(space.categorical, method.categories.probabilities, strict=True):
        shares = ", ".join(f"{choice} {share:.0%}" for choice, share in zip(space.params[i].choices, p, strict=True))
        name = space.names[i]
        lines.append(f"{name}: {shares}; next suggestion {suggestion[name]}.")
    return "\n".join(lines).strip()


def correlations(method: CmaEs) -> list[str]:
    """The strongest correlations, each as a sentence."""
    gaussian = method.gaussian
    if gaussian is None or len(gaussian.mean) < 2:
        return []
    deviation = np.sqrt(np.diag(gaussian.covariance))
    matrix = gaussian.covariance / np.outer(deviation, deviation)
    names = [method.space.names[i] for i in method.numeric]
    pairs = sorted(combinations(range(len(names)), 2), key=lambda pair: -abs(matrix[pair]))[:CORRELATIONS]
    said = []
    for i, j in pairs:
        if abs(matrix[i, j]) >= WEAK:
            way = "higher" if matrix[i, j] > 0 else "lower"
            said.append(f"- A higher {names[i]} goes with a {way} {names[j]} ({matrix[i, j]:+.2f}).")
    return ["What went well together:", *said, ""] if said else ["No two parameters are clearly correlated yet.", ""]
