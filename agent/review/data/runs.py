"""All runs of a folder, one line each.

``runs_json`` is schema ``overnight.list/1``: a list of objects with schema, tag, state (running, ended, interrupted),
reason (why it ended; null), metric, goal, proposer, started (seconds since the epoch), trials, planned (null without a
bound), kept, failed, baseline, best, gain, gain_se, self_reported.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from agent import text
from agent.ledger.state import State
from agent.review.data.summary import summarize

SCHEMA = "overnight.list/1"

Row = tuple[str, State, bool]  # tag, state, whether a session is at work on it


def condition(state: State, running: bool) -> str:
    return "running" if running else "ended" if state.ended else "interrupted"


def runs_json(rows: Iterable[Row]) -> list[dict[str, Any]]:
    found = []
    for tag, state, running in rows:
        summary = summarize(state)
        found.append(
            {
                "schema": SCHEMA,
                "tag": tag,
                "state": condition(state, running),
                "reason": text.line(state.ended) if state.ended and not running else None,
                "metric": text.line(summary.metric),
                "goal": summary.goal,
                "proposer": text.line(state.session.proposer),
                "started": state.began,
                "trials": summary.trials,
                "planned": summary.planned,
                "kept": summary.kept,
                "failed": summary.failed,
                "baseline": summary.baseline.value if summary.baseline else None,
                "best": summary.best.value if summary.best else None,
                "gain": summary.gain,
                "gain_se": summary.gain_se,
                "self_reported": summary.self_reported,
            }
        )
    return found
