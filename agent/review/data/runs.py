"""All runs of a folder, one line each.

``run_json`` is one element of schema ``overnight.list/1``: a list of objects with schema, tag, state (running, ended,
interrupted), reason (why it ended; null), metric, goal, proposer, started (seconds since the epoch), trials, planned
(null without a bound), kept, failed, baseline, best, gain, gain_se, self_reported, and in ``overnight list`` comparison
(null): the name of the comparison whose session it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from agent import text
from agent.ledger.state import State
from agent.review.data.summary import Summary, summarize

LIST_SCHEMA = "overnight.list/1"


@dataclass(frozen=True)
class Overview:
    """One run in one line. Texts are sanitised."""

    tag: str
    condition: str  # running, ended or interrupted
    ended: str  # the reason; "" unless ended
    proposer: str
    started: float | None  # seconds since the epoch
    summary: Summary


def overview_of(tag: str, state: State, running: bool) -> Overview:
    return Overview(
        tag=tag,
        condition=condition(state, running),
        ended=text.line(state.ended) if state.ended and not running else "",
        proposer=text.line(state.session.proposer),
        started=state.session.began,
        summary=summarize(state),
    )


def condition(state: State, running: bool) -> str:
    return "running" if running else "ended" if state.ended else "interrupted"


def run_json(run: Overview) -> dict[str, Any]:
    summary = run.summary
    return {
        "schema": LIST_SCHEMA,
        "tag": run.tag,
        "state": run.condition,
        "reason": run.ended or None,
        "metric": text.line(summary.metric),
        "goal": summary.goal,
        "proposer": run.proposer,
        "started": run.started,
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
