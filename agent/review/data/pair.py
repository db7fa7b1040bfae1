"""Two trials of a session side by side: their values, and the diff between their files.

``diff_json`` is schema ``overnight.diff/1``. One object:

- metric, goal, self_reported
- a, b: name, commit, value (null for a failure) and runs of each side
- gain: of b over a, positive is better; null where a value is missing or both are one commit; gain_se
- diff: empty where the files are the same
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from agent import text
from agent.errors import UsageError
from agent.judge.gain import gain_of_runs
from agent.judge.noise import noise_of
from agent.ledger.state import State
from agent.repo.repo import Repo
from agent.review.data.diffs import diff_of
from agent.review.data.summary import estimate, estimating, summarize
from agent.types import Measurement, to_json

DIFF_SCHEMA = "overnight.diff/1"


@dataclass(frozen=True)
class Side:
    """A trial, the baseline, or the head."""

    name: str
    commit: str
    value: float | None  # None for a failure
    runs: int  # behind the value


@dataclass(frozen=True)
class Pair:
    """Two sides and what differs between them."""

    metric: str
    goal: str
    self_reported: bool
    diff: str  # unified diff of the edited file from a to b
    a: Side
    b: Side
    gain: float | None  # of b over a; None where a value is missing or both are one commit
    gain_se: float | None


def pair_of(state: State, repo: Repo, a: str, b: str) -> Pair:
    """Compare two trials.

    Args:
        a: Number of a trial, ``0`` or ``baseline``, or ``head``. The same holds for ``b``.

    Raises:
        UsageError: There is no such trial, it never became code, or its commit is not in ``repo``.
    """
    (side_a, runs_a), (side_b, runs_b) = _side(state, a), _side(state, b)
    repo.need((side_a.commit, side_b.commit), state.session.tag)
    before, after = (repo.read(side.commit, state.session.path) for side in (side_a, side_b))
    summary, same = summarize(state), side_a.commit == side_b.commit
    gain = None if same else gain_of_runs(runs_a, runs_b, summary.goal, noise_of(state))
    return Pair(
        metric=summary.metric,
        goal=summary.goal,
        self_reported=summary.self_reported,
        diff=diff_of(before, after, (side_a.name, side_b.name)),
        a=side_a,
        b=side_b,
        gain=gain.value if gain else None,
        gain_se=gain.se if gain else None,
    )


def diff_json(pair: Pair) -> dict[str, Any]:
    return text.clean_json({"schema": DIFF_SCHEMA, **to_json(pair)})


def _side(state: State, word: str) -> tuple[Side, Sequence[Measurement]]:
    """One side, and the runs that estimate its value."""
    name, commit, runs = _named(state, word)
    found = estimate(runs)
    side = Side(name, commit, found.value if found else None, found.n if found else 0)
    return side, estimating(runs)


def _named(state: State, word: str) -> tuple[str, str, Sequence[Measurement]]:
    """Name, commit and runs of one side."""
    if word in ("0", "baseline"):
        return "baseline", state.baseline, state.baseline_runs
    if word == "head":
        return "head", state.head, state.runs.get(state.incumbent, ())
    number = int(word) if word.isdigit() else -1
    record = state.of_trial(number)
    if record is None:
        trials = f"1 to {len(state.records)}, " if state.records else ""
        raise UsageError(f"{word!r} is no trial of this session: it has {trials}baseline and head.")
    if record.candidate is None:
        raise UsageError(f"trial {number} never became code ({record.status}). See: overnight show TAG {number}")
    return f"trial {number}", record.candidate, record.runs
