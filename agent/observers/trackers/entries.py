"""What a tracker receives: one entry for each trial, and one point of the session's series after each trial.

Both are functions of the ledger up to the event ``told`` of the trial, and of the run directory, so that a past run
gives the same entries as a live one.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from agent import text
from agent.curves import Point, curve_of, thin
from agent.ledger.events import fields_of
from agent.ledger.state import State
from agent.llm.api_keys import scrub
from agent.review.data.attempts import attempt_columns, attempt_json, attempt_of
from agent.review.data.summary import summarize
from agent.review.data.times import phases
from agent.types import Record, Value

MOST_POINTS = 300  # of a loss curve
MOST_TEXT, MOST_LABEL = 100_000, 500  # characters
FIGURES = [name for name, kind in attempt_columns().items() if kind in (int, float) and name != "trial"]
PRIVATE = {"program", "target", "path", "memory", "v", "event", "time"}  # fields of the session that stay here


@dataclass(frozen=True)
class About:
    """The session, for a tracker."""

    id: str  # tag and start: equal for a resumed or copied run, and for no other
    tag: str
    began: float  # seconds since the epoch
    settings: Mapping[str, str]


@dataclass(frozen=True)
class Entry:
    """One trial, for a tracker. Texts are sanitised."""

    number: int  # 0 is the baseline
    id: str
    name: str
    params: Mapping[str, Value]  # values of the hyperparameter block; empty for an edit of code
    labels: Mapping[str, str]  # decision, status, source, category, ...
    figures: Mapping[str, float]  # value, gain, gain_se; system figures under ``system/``
    curve: tuple[Point, ...]  # training loss; its steps increase
    diff: str
    rationale: str
    started: float  # seconds since the epoch
    ended: float

    @property
    def texts(self) -> dict[str, str]:
        return {"name": self.name, "diff": self.diff, "rationale": self.rationale}


def about(state: State) -> About:
    """The description of a session. ``state`` has a session event."""
    session, began = state.session, state.session.began or 0.0
    mark = hashlib.sha256(f"{session.tag}/{session.baseline}/{began}".encode()).hexdigest()[:8]
    fields = {name: text.line(str(value), MOST_LABEL) for name, value in fields_of(session).items() if value != ""}
    settings = {name: value for name, value in fields.items() if name not in PRIVATE}
    return About(f"{session.tag}-{mark}", session.tag, began, settings)


def entry_of(number: int, state: State, run_dir: Path) -> Entry:
    """The entry of trial ``number``; 0 is the baseline."""
    record = state.baseline_record if number == 0 else state.records[number - 1]
    found = attempt_json(attempt_of(record))
    subject, began = str(found["subject"]), record.started or state.session.began or 0.0
    return Entry(
        number=number,
        id=f"{about(state).id}-{number:04d}",
        name=text.line(f"{number:04d} {scrub(subject)}", 100),
        params=dict(record.proposal.params or {}),
        labels={name: text.line(scrub(v), MOST_LABEL) for name, v in found.items() if isinstance(v, str) and v},
        figures={name: float(found[name]) for name in FIGURES if found[name] is not None} | _system(record),
        curve=_increasing(thin(curve_of(run_dir, record.runs), MOST_POINTS)),
        diff=_text(record.proposal.diff),
        rationale=_text(record.proposal.rationale).strip(),
        started=began,
        ended=record.ended or state.last_time,
    )


def point_of(state: State) -> dict[str, float]:
    """The incumbent after a trial: its value, its gain over the baseline, and the counts so far."""
    summary = summarize(state)
    value = summary.best.value if summary.best else None
    found = {
        "best_value": value, "best_gain": summary.gain, "best_gain_se": summary.gain_se,
        "trials": summary.trials, "kept": summary.kept, "runs": summary.runs, "hours": summary.wall_seconds / 3600,
    }  # fmt: skip
    return {name: float(number) for name, number in found.items() if number is not None}


def _system(record: Record) -> dict[str, float]:
    """Seconds by phase over all runs, the highest memory, the first run's own figures, and the model's tokens."""
    figures = {f"seconds_{phase}": seconds for phase, seconds in phases(record.runs).items()}
    if memory := [run.peak_memory_gb for run in record.runs if run.peak_memory_gb is not None]:
        figures["peak_memory_gb"] = max(memory)
    figures |= {_name(name): value for run in record.runs[:1] for name, value in run.metrics.items()}
    for proposal in record.proposals:
        for name, count in proposal.usage.items():
            figures[f"model_{name}"] = figures.get(f"model_{name}", 0.0) + count
    return {f"system/{name}": float(value) for name, value in figures.items()}


def _name(name: str) -> str:
    """The name of a figure that the edited code may have chosen, in characters that every tracker accepts."""
    return re.sub(r"[^A-Za-z0-9_.-]", "_", name)[:50]


def _increasing(points: list[Point]) -> tuple[Point, ...]:
    """The points whose step is above all before it: the edited code could have written any steps."""
    found: list[Point] = []
    for point in points:
        if point.step > (found[-1].step if found else -1):
            found.append(point)
    return tuple(found)


def _text(value: str) -> str:
    return text.clean(scrub(value))[:MOST_TEXT]
