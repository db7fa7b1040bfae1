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
from agent.judge.gain import Gain, gain_of_runs
from agent.judge.noise import noise_of
from agent.ledger.state import State
from agent.repo.repo import Repo
from agent.review.data.diffs import diff_of
from agent.review.data.summary import Estimate, estimate, estimating, summarize
from agent.types import Measurement

DIFF_SCHEMA = "overnight.diff/1"


@dataclass(frozen=True)
class Side:
    """A trial, the baseline, or the head."""

    name: str
    commit: str
    estimate: Estimate | None  # None for a failure


@dataclass(frozen=True)
class Pair:
    """Two sides and what differs between them."""

    metric: str
    goal: str
    self_reported: bool
    a: Side
    b: Side
    gain: Gain | None  # of b over a; None where a value is missing or both are one commit
    diff: str  # unified diff of the edited file from a to b


def pair_of(state: State, repo: Repo, a: str, b: str) -> Pair:
    """Compare two trials.

    Args:
        a: Number of a trial, ``0`` or ``baseline``, or ``head``. The same holds for ``b``.

    Raises:
        UsageError: There is no such trial, it never became code, or its commit is not in ``repo``.
    """
    (name_a, commit_a, runs_a), (name_b, commit_b, runs_b) = (_side(state, word) for word in (a, b))
    repo.need((commit_a, commit_b), state.session.tag)
    path, summary = state.session.path, summarize(state)
    same = commit_a == commit_b
    return Pair(
        metric=summary.metric,
        goal=summary.goal,
        self_reported=summary.self_reported,
        a=Side(name_a, commit_a, estimate(runs_a)),
        b=Side(name_b, commit_b, estimate(runs_b)),
        gain=None if same else gain_of_runs(estimating(runs_a), estimating(runs_b), summary.goal, noise_of(state)),
        diff=diff_of(repo.read(commit_a, path), repo.read(commit_b, path), (name_a, name_b)),
    )


def diff_json(pair: Pair) -> dict[str, Any]:
    data = {
        "schema": DIFF_SCHEMA,
        **{name: getattr(pair, name) for name in ("metric", "goal", "self_reported", "diff")},
        "a": _side_json(pair.a),
        "b": _side_json(pair.b),
        "gain": pair.gain.value if pair.gain else None,
        "gain_se": pair.gain.se if pair.gain else None,
    }
    return text.clean_json(data)


def _side(state: State, word: str) -> tuple[str, str, Sequence[Measurement]]:
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


def _side_json(side: Side) -> dict[str, Any]:
    value, runs = (side.estimate.value, side.estimate.n) if side.estimate else (None, 0)
    return {"name": side.name, "commit": side.commit, "value": value, "runs": runs}
