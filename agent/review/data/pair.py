"""Two attempts of a run side by side: their values, and the diff between their files.

``diff_json`` is schema ``overnight.diff/1``: an object with schema, metric, goal, a and b (each name, commit, value
(null for a failure), runs), gain (of b over a; positive is better; null where a value lacks or both are one commit),
gain_se, self_reported and diff (empty where the files are the same).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from agent import text
from agent.errors import UsageError
from agent.ledger.state import State
from agent.repo.repo import Repo
from agent.review.data.diffs import diff_of
from agent.review.data.summary import Estimate, difference, estimate, summarize
from agent.types import Measurement

SCHEMA = "overnight.diff/1"


def side(state: State, word: str) -> tuple[str, str, Sequence[Measurement]]:
    """Name, commit and runs of one side: the number of a trial, 0 or ``baseline``, ``head``.

    Raises:
        UsageError: there is no such trial, or it never became code.
    """
    if word in ("0", "baseline"):
        return "baseline", state.baseline, state.baseline_runs
    if word == "head":
        return "head", state.head, state.runs.get(state.incumbent, ())
    number = int(word) if word.isdigit() else -1
    record = state.of_trial(number)
    if record is None:
        trials = f"1 to {len(state.records)}, " if state.records else ""
        raise UsageError(f"{word!r} is no trial of this run: it has {trials}baseline and head.")
    if record.candidate is None:
        raise UsageError(f"trial {number} never became code ({record.status}): `overnight show` has what was proposed.")
    return f"trial {number}", record.candidate, record.runs


@dataclass(frozen=True)
class Side:
    """One of the two: an attempt, the baseline, or the head."""

    name: str
    commit: str
    found: Estimate | None
    text: str


def sides(state: State, repo: Repo, a: str, b: str) -> tuple[Side, Side]:
    """Both, with their files.

    Raises:
        UsageError: there is no such trial, or its commit is not in this repository.
    """
    path = state.session.path
    found = [side(state, word) for word in (a, b)]
    repo.need((commit for _, commit, _ in found), state.session.tag)
    one, other = (Side(name, commit, estimate(runs), repo.read(commit, path)) for name, commit, runs in found)
    return one, other


def gain_between(state: State, one: Side, other: Side) -> tuple[float | None, float | None]:
    """Gain of the second over the first (positive is better) and its standard error; None where nothing tells."""
    if not one.found or not other.found or one.commit == other.commit:  # against itself nothing has gained or lost
        return None, None
    summary = summarize(state)
    gain = difference(one.found.value, other.found.value, summary.goal)
    sd = summary.noise_sd
    return gain, sd * math.sqrt(1 / one.found.n + 1 / other.found.n) if sd is not None else None


def diff_json(state: State, repo: Repo, a: str, b: str) -> dict[str, Any]:
    one, other = sides(state, repo, a, b)
    summary = summarize(state)
    gain, se = gain_between(state, one, other)
    data = {
        "schema": SCHEMA,
        "metric": summary.metric,
        "goal": summary.goal,
        **{
            key: {
                "name": each.name,
                "commit": each.commit,
                "value": each.found.value if each.found else None,
                "runs": each.found.n if each.found else 0,
            }
            for key, each in (("a", one), ("b", other))
        },
        "gain": gain,
        "gain_se": se,
        "self_reported": summary.self_reported,
        "diff": diff_of(one.text, other.text, (one.name, other.name)),
    }
    cleaned = text.clean_json(data)
    assert isinstance(cleaned, dict)
    return cleaned
