"""One run at a glance.

``status_json`` is schema ``overnight.status/1``: an object with the keys of ``overnight list --json`` and schema,
branch, baseline_runs, best_runs, test_baseline, test_best, test_gain, test_problem (why the test split has no value, or
empty), noise_sd, noise_dof, reverted, failures (by status), runs, lost_runs, resumed, seconds (by phase, over all
runs), wall_seconds (without the time in which no session was at work), split (seconds by what they were spent on, which
add up to wall_seconds), seconds_left (null if nobody can tell), now (trial, role and since of the run under way; null),
and heartbeat (seconds since the session last wrote anything; null where none runs).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agent import text
from agent.ledger.state import State
from agent.review.data.runs import runs_json
from agent.review.data.summary import Summary, summarize

SCHEMA = "overnight.status/1"

SETUP = ("proposer", "policy", "sandbox", "budget", "device")


def status_json(
    state: State, run: Mapping[str, Any], now: float, running: bool, last_sign: float | None = None
) -> dict[str, Any]:
    summary = summarize(state)
    tag = tag_of(state, run)
    under_way = _under_way(state) if running else None
    return {
        **runs_json([(tag, state, running)])[0],
        "schema": SCHEMA,
        "branch": f"autoresearch/{tag}",
        "baseline_runs": summary.baseline.n if summary.baseline else 0,
        "best_runs": summary.best.n if summary.best else 0,
        "test_baseline": summary.test_baseline,
        "test_best": summary.test_best,
        "test_gain": summary.test_gain,
        "test_problem": text.line(summary.test_problem),
        "noise_sd": summary.noise_sd,
        "noise_dof": summary.noise_dof,
        "reverted": summary.reverted,
        "failures": dict(summary.failures),
        "runs": summary.runs,
        "lost_runs": state.lost,
        "resumed": state.resumed,
        "seconds": {phase: round(seconds, 1) for phase, seconds in summary.seconds.items()},
        "wall_seconds": round(summary.wall_seconds, 1),
        "split": {part: round(seconds, 1) for part, seconds in summary.split.items()},
        "seconds_left": seconds_left(state, summary, now) if running else None,
        "now": under_way,
        "heartbeat": round(max(0.0, now - last_sign), 1) if running and last_sign is not None else None,
    }


def tag_of(state: State, run: Mapping[str, Any]) -> str:
    table = run.get("run")
    return str(state.session.tag or (table.get("tag", "") if isinstance(table, Mapping) else ""))


def seconds_left(state: State, summary: Summary, now: float) -> float | None:
    """By the mean of the trials so far; None without a number of trials to reach."""
    if not summary.planned or not state.finished:
        return None
    first = state.records[0].started
    mean = max(0.0, state.last_time - first) / len(state.finished)
    return max(0.0, mean * (summary.planned - summary.trials) - max(0.0, now - state.last_time))


def _under_way(state: State) -> dict[str, Any] | None:
    if not state.started:
        return None
    run = state.started[-1]
    return {"trial": run.trial, "role": run.role, "since": run.time}
