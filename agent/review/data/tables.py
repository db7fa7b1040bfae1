"""The tables of a session: sources, usage of the model, hyperparameters, state of the search, environment."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agent import text
from agent.ledger.events import fields_of
from agent.ledger.state import State
from agent.review.data.attempts import Attempt
from agent.types import Record, Value

Series = tuple[tuple[int, float], ...]  # (trial, value)
Values = list[tuple[Attempt, Value]]  # of a hyperparameter, for each trial that set it
SEARCH = ("step", "longest", "shortest", "model_share")  # of Proposal.search


@dataclass(frozen=True)
class SourceRow:
    """What one source of proposals contributed."""

    source: str
    trials: int
    kept: int
    failed: int
    gain: float  # sum over its kept edits
    seconds: float  # of its runs


def source_rows(attempts: Sequence[Attempt]) -> tuple[SourceRow, ...]:
    """Return one row for each source, the most active first."""
    groups: dict[str, list[Attempt]] = {}
    for attempt in attempts:
        groups.setdefault(attempt.source or "unknown", []).append(attempt)
    rows = [
        SourceRow(
            source=source,
            trials=len(group),
            kept=sum(attempt.decision == "keep" for attempt in group),
            failed=sum(attempt.record.failed for attempt in group),
            gain=sum(attempt.gain or 0.0 for attempt in group if attempt.decision == "keep"),
            seconds=sum(attempt.seconds for attempt in group),
        )
        for source, group in groups.items()
    ]
    return tuple(sorted(rows, key=lambda row: -row.trials))


def usage_of(records: Iterable[Record]) -> dict[str, str | float]:
    """Return the name of the model and the sums of its calls, tokens and seconds; {} if no model was used.

    Names of tokens say how many calls have estimated ones.
    """
    total: Counter[str] = Counter()
    models: dict[str, None] = {}
    for proposal in (proposal for record in records for proposal in record.proposals if proposal.usage):
        total.update({name: amount for name, amount in proposal.usage.items() if math.isfinite(amount)})
        models |= {text.line(proposal.model, 60): None} if proposal.model else {}
    guessed = total.pop("estimated", 0)
    label = f" ({text.count(int(guessed), 'call')} estimated)" if guessed else ""
    sums = {
        text.line(name.replace("_", " "), 40) + (label if name.startswith("tokens") else ""): float(amount)
        for name, amount in total.items()
    }
    return {**({"model": ", ".join(models)} if models else {}), **sums}


@dataclass(frozen=True)
class IdeaTally:
    """The ideas of the bank in a session."""

    tried: int  # that an attempt took up
    kept: int
    open: int  # of the bank as it was at the latest proposal


def tally_of_ideas(records: Iterable[Record]) -> IdeaTally | None:
    """Count the ideas of the bank; None without proposals that know the bank."""
    uses = [(record, record.proposal.ideas) for record in records if record.proposal.ideas is not None]
    if not uses:
        return None
    taken = [use.taken for _, use in uses if use.taken]
    kept = {use.taken for record, use in uses if use.taken and record.decision == "keep"}
    latest = uses[-1][1]
    new = bool(latest.taken) and taken.count(latest.taken) == 1
    return IdeaTally(len(set(taken)), len(kept), max(0, latest.left - new))


def parameters_of(attempts: Sequence[Attempt]) -> dict[str, Values]:
    """Return the values of every hyperparameter that took more than one, in the order of the block."""
    points: dict[str, Values] = {}
    for attempt in attempts:
        for name, value in (attempt.record.proposal.params or {}).items():
            points.setdefault(name, []).append((attempt, value))
    return {name: found for name, found in points.items() if len({repr(value) for _, value in found}) > 1}


def search_series(records: Sequence[Record]) -> dict[str, Series]:
    """Return the recorded state of the search method by trial."""
    return {
        name: tuple((r.number, r.proposal.search[name]) for r in records if r.proposal.search.get(name, 0.0) > 0)
        for name in SEARCH
    }


def environment_tables(state: State, run: Mapping[str, Any]) -> tuple[tuple[str, tuple[tuple[str, str], ...]], ...]:
    """Return the session event and the tables of run.toml, with the settings that resumes changed, as text."""
    session = {k: v for k, v in fields_of(state.session).items() if k not in ("v", "event", "time")}
    if state.settings:
        run = {**run, "run": {**run.get("run", {}), **state.settings}}
    tables = {"session": session, **{name: table for name, table in run.items() if isinstance(table, Mapping)}}
    tables["made"] = {name: value for name, value in run.items() if not isinstance(value, Mapping)}
    found = ((text.line(str(name), 40), tuple(_flat(table))) for name, table in tables.items())
    return tuple((name, rows) for name, rows in found if rows)


def _flat(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in table.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from _flat(value, f"{name}.")
        elif value not in (None, "", [], ()):
            yield text.line(name, 60), text.line(_words(value), 200)


def _words(value: Any) -> str:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(_words(item) for item in value)
    return str(value)
