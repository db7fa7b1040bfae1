"""The state of a search as text for a prompt, in the units of the block."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from agent.proposers.search.base import Method, Observation, Terms, loss, successes
from agent.space.axes import short
from agent.space.space import Params, SearchSpace
from agent.types import Param, Value

if TYPE_CHECKING:
    from agent.proposers.search.cma import CmaEs, Gaussian
    from agent.proposers.search.surrogate import Surrogate

BEST = 5
LATEST = 20
CORRELATIONS = 6
INFLUENTIAL = 5
WEAKEST = 0.15  # smallest correlation that is shown


def show(value: Value | None) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def row(space: SearchSpace, params: Params) -> str:
    """The values as cells of a Markdown table, in the order of the space."""
    return "".join(f" {show(params[name])} |" for name in space.names)


def bounds(space: SearchSpace) -> str:
    """One line per parameter, then the constraints."""
    lines = [f"- {p.name}: {_range(p)}" for p in space.params]
    return "\n".join([*lines, *(f"- always: `{c.text}`" for c in space.constraints)])


def _range(p: Param) -> str:
    if p.low is None or p.high is None:
        return "one of " + ", ".join(map(str, p.choices))
    kind = "power of two" if p.power_of_two else "whole number" if p.kind == "int" else "number"
    return f"{kind}, {short(p.low)} to {short(p.high)}" + (", logarithmic" if p.log else "")


def table(
    space: SearchSpace, observations: Iterable[Observation], terms: Terms, others: Mapping[str, Iterable[Params]] = {}
) -> str:
    """Results with their configurations. A failure shows its status and memory.

    ``others`` are configurations without a result, by the label in place of the result.
    """
    head = "| result |" + "".join(f" {name} |" for name in space.names)
    rows = [f"| {_result(o, terms)} |{row(space, o.params)}" for o in observations]
    rows += [f"| {label} |{row(space, params)}" for label, points in others.items() for params in points]
    return "\n".join([head, "|---" * (space.dimensions + 1) + "|", *rows]) if rows else "None yet."


def latest(method: Method) -> str:
    """Table of the latest results, the open asks, and the baseline if it has no result."""
    measured = any(o.key == method.space.key(method.baseline) for o in method.observations)
    others: dict[str, list[Params]] = {
        "running": [suggestion.params for suggestion in method.open.values()],
        "not measured again": [] if measured else [method.baseline],
    }
    return table(method.space, method.observations[-LATEST:], method.terms, others)


def _result(observation: Observation, terms: Terms) -> str:
    if observation.value is not None:
        return f"{terms.shown(observation.value):.5f}"
    return observation.status + (f" ({observation.memory_gb:.1f} GB)" if observation.memory_gb else "")


def leaders(observations: Sequence[Observation]) -> list[Observation]:
    """The best successes, best first."""
    return sorted(successes(observations), key=loss)[:BEST]


def progress(method: Method, surrogate: Surrogate) -> str:
    """How far the search is: results, failures, the best and its age, and the parameters that matter most."""
    known, top = method.observations, method.best
    failed = Counter(o.status for o in known if o.value is None)
    kinds = ", ".join(f"{count} {status}" for status, count in failed.most_common())
    lines = [f"- {len(known)} results; " + (f"failed: {kinds}." if failed else "none failed.")]
    if top is not None and top.value is not None:
        since = len(known) - 1 - next(i for i, o in enumerate(known) if o is top)
        lines.append(f"- Best: {method.terms.shown(top.value):.5f}; {since} results since then brought no improvement.")
    if names := surrogate.influential():
        lines.append(f"- Strongest influence on the result so far: {', '.join(names[:INFLUENTIAL])}.")
    return "\n".join(lines)


def state(method: CmaEs, suggestion: Params) -> str:
    """The distribution of CMA-ES: mean, one standard deviation, next sample, correlations, category probabilities."""
    space, gaussian = method.space, method.gaussian
    lines = []
    if gaussian is not None:
        deviation = gaussian.step * np.sqrt(np.diag(gaussian.covariance))
        lines += ["| parameter | mean | one step, low to high | next suggestion |", "|---|---|---|---|"]
        for k, i in enumerate(method.numeric):
            name, mean = space.names[i], float(gaussian.mean[k])
            low, middle, high = (show(space.axes[name].decode(mean + s * float(deviation[k]))) for s in (-1, 0, 1))
            lines.append(f"| {name} | {middle} | {low} to {high} | {show(suggestion[name])} |")
        lines += ["", *correlations(gaussian, [space.names[i] for i in method.numeric])]
    for i, p in zip(space.categorical, method.categories.probabilities, strict=True):
        shares = ", ".join(f"{choice} {share:.0%}" for choice, share in zip(space.params[i].choices, p, strict=True))
        lines.append(f"{space.names[i]}: {shares}; next suggestion {suggestion[space.names[i]]}.")
    return "\n".join(lines).strip()


def correlations(gaussian: Gaussian, names: Sequence[str]) -> list[str]:
    """The strongest correlations of CMA-ES, one sentence each."""
    if len(names) < 2:
        return []
    deviation = np.sqrt(np.diag(gaussian.covariance))
    matrix = gaussian.covariance / np.outer(deviation, deviation)
    pairs = sorted(combinations(range(len(names)), 2), key=lambda pair: -abs(matrix[pair]))[:CORRELATIONS]
    lines = [
        f"- Higher {names[i]} goes with {'higher' if matrix[i, j] > 0 else 'lower'} {names[j]} ({matrix[i, j]:+.2f})."
        for i, j in pairs
        if abs(matrix[i, j]) >= WEAKEST
    ]
    return ["Correlations of good values:", *lines, ""] if lines else ["No two parameters are clearly correlated.", ""]
