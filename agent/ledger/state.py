"""The state of a session: the fold of the events in its ledger."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from statistics import fmean
from typing import Any

import msgspec

from agent.errors import OvernightError
from agent.ledger import events
from agent.ledger.events import Event, RunStarted, ServerProblem, SessionStarted, Stacked, fields_of, name_of
from agent.types import Measurement, Proposal, Record, Repair, Verdict, Weight, copy_with, values_of

RETRIES = 3  # lost runs in a row per worker after which a session or replay stops


class LedgerDamaged(OvernightError):
    """A line of the ledger does not parse, or does not fit the lines before it."""


@dataclass(frozen=True)
class State:
    """What the events of a ledger add up to. ``records[k]`` is trial ``k + 1``; trial 0 is the baseline."""

    session: SessionStarted = field(default_factory=SessionStarted)  # with the changes of all resumes
    settings: Mapping[str, Any] = field(default_factory=dict)  # changed by resumes; they differ from run.toml
    records: tuple[Record, ...] = ()
    runs: Mapping[str, tuple[Measurement, ...]] = field(default_factory=dict)  # by commit, oldest first
    started: tuple[RunStarted, ...] = ()  # runs neither measured nor lost yet
    observed: frozenset[int] = frozenset()  # trials whose outcome the proposer knows
    moved: Mapping[int, str] = field(default_factory=dict)  # trial → accepted commit
    lost: int = 0  # number of lost runs
    server_problems: tuple[ServerProblem, ...] = ()  # of the model server that sleeps during runs
    resumed: int = 0  # number of resumes
    ended: str | None = None  # why the session ended
    last_time: float = 0.0  # of the last event
    resumed_at: int = 0  # number of trials at the last resume
    away: float = 0.0  # seconds in which no session was running
    keeps: tuple[int, ...] = ()  # kept trials, in the order of their verdicts
    open: tuple[int, ...] = ()  # trials with neither a verdict nor an ending
    stacks: tuple[Stacked, ...] = ()  # policy stacked: runs that carry several edits, oldest first
    weights: Mapping[int, Weight] = field(default_factory=dict)  # policy stacked: latest by trial
    plan: Mapping[str, Any] | None = None  # of a replay or promotion

    @property
    def baseline(self) -> str:
        return self.session.baseline

    @property
    def head(self) -> str:
        """The accepted commit at the tip of the branch."""
        return list(self.moved.values())[-1] if self.moved else self.baseline

    @property
    def on_branch(self) -> frozenset[str]:
        """The commits that the run has put on its branch."""
        return frozenset({self.baseline, *self.moved.values()})

    @property
    def incumbent(self) -> str:
        """The measured commit of the best so far: the baseline, or the candidate of the last trial that was kept."""
        return (self.records[self.keeps[-1] - 1].candidate or self.baseline) if self.keeps else self.baseline

    def measured(self, accepted: str) -> str:
        """The measured commit with the same tree as ``accepted``."""
        return next((r.candidate for r in self.kept if r.accepted == accepted and r.candidate), self.baseline)

    @property
    def baseline_runs(self) -> tuple[Measurement, ...]:
        return self.runs.get(self.baseline, ())

    @property
    def open_records(self) -> tuple[Record, ...]:
        """The open trials, oldest first."""
        return tuple(self.records[number - 1] for number in self.open)

    @cached_property
    def finished(self) -> tuple[Record, ...]:
        return tuple(r for r in self.records if r.verdict is not None or r.proposal.ending is not None)

    @cached_property
    def kept(self) -> tuple[Record, ...]:
        return tuple(self.records[number - 1] for number in self.keeps)

    def of_trial(self, number: int) -> Record | None:
        return self.records[number - 1] if 1 <= number <= len(self.records) else None

    @property
    def baseline_record(self) -> Record:
        """Trial 0: the unchanged target, for the search methods and results.tsv."""
        values = values_of(self.baseline_runs)
        value = fmean(values) if values else None
        verdict = Verdict("keep", value, None, None, None, len(values), 0, max(len(values) - 1, 0), "baseline")
        proposal = Proposal("baseline", "baseline", self.baseline, "", subject="baseline")
        return Record(0, proposal, candidate=self.baseline, runs=self.baseline_runs, verdict=verdict)


class StateBuilder:
    """Folds events one by one. It is mutable: a new state after each of 60,000 events would take an hour."""

    def __init__(self) -> None:
        self.session = SessionStarted()
        self.settings: Mapping[str, Any] = {}
        self.records: list[Record] = []
        self.runs: dict[str, tuple[Measurement, ...]] = {}
        self.started: list[RunStarted] = []
        self.observed: set[int] = set()
        self.moved: dict[int, str] = {}
        self.lost = self.resumed = self.resumed_at = 0
        self.ended: str | None = None
        self.last_time = self.away = 0.0
        self.keeps: list[int] = []
        self.open: list[int] = []
        self.stacks: list[Stacked] = []
        self.server_problems: list[ServerProblem] = []
        self.weights: dict[int, Weight] = {}
        self.plan: Mapping[str, Any] | None = None

    def apply(self, event: Event) -> None:
        """Fold one event.

        Raises:
            LedgerDamaged: the event is of a trial that does not exist.
        """
        # 0 also where the clock was set back
        since = max(0.0, event.time - self.last_time) if self.last_time else 0.0
        self.last_time = event.time
        try:
            self._apply(event, since)
        except (LookupError, ValueError) as error:
            raise LedgerDamaged(f"an event {name_of(event)!r} does not fit those before it: {error}") from error

    def apply_all(self, log: Iterable[Event], name: str) -> None:
        """Fold the events of a whole ledger.

        Raises:
            LedgerDamaged: names the line.
        """
        for number, event in enumerate(log, start=1):
            try:
                self.apply(event)
            except LedgerDamaged as error:
                raise LedgerDamaged(f"{name}, line {number}: {error}") from error

    def _apply(self, event: Event, since: float) -> None:
        match event:
            case events.SessionStarted():
                self.session = event
            case events.Planned():
                self.plan = event.plan
            case events.Asked():
                self._ask(event, since)
            case events.Repaired():
                self._repair(event)
            case events.Candidate():
                self._commit(event)
            case events.RunStarted():
                self.started.append(event)
            case events.Measured():
                self._measure(event)
            case events.Judged():
                self._change(event.trial, verdict=event.verdict, ended=event.time)
                self.open = [trial for trial in self.open if trial != event.trial]
                if event.verdict.decision == "keep":
                    self.keeps.append(event.trial)
            case events.Observed():
                self.observed.add(event.trial)
            case events.Moved():
                self._change(event.trial, accepted=event.commit)
                self.moved[event.trial] = event.commit
            case events.Stacked():
                self.stacks.append(event)
            case events.Weighed():
                self.weights.update({weight.trial: weight for weight in event.edits})
            case events.Published():
                for trial, commit in zip(event.trials, event.commits, strict=True):
                    self._change(trial, accepted=commit)
                    self.moved[trial] = commit
            case events.Lost():
                self._close_run(event.trace)
                self.lost += 1
            case events.ServerProblem():
                self.server_problems.append(event)
            case events.Resumed():
                self._resume(event, since)
            case events.Ended():
                self.ended = event.reason

    def _ask(self, event: events.Asked, since: float) -> None:
        if event.trial != len(self.records) + 1:
            raise ValueError(f"trial {event.trial}, where the next one is {len(self.records) + 1}")
        ended = event.time if event.proposal.ending else None
        started = event.time if event.started is None else event.started
        waited = since if event.waited is None else event.waited
        self.records.append(Record(event.trial, event.proposal, started=started, ended=ended, asking=waited))
        if not event.proposal.ending:
            self.open.append(event.trial)

    def _repair(self, event: events.Repaired) -> None:
        before = self._record(event.trial)
        asking = before.asking + event.waited
        if event.proposal.ending:
            self._change(event.trial, asking=asking, repairs=(*before.repairs, Repair(event.proposal)))
            return
        self._change(
            event.trial,
            proposal=event.proposal,
            candidate=None,
            base="",
            runs=(),
            asking=asking,
            revision=before.revision + 1,
            repairs=(*before.repairs, Repair(before.proposal, before.runs)),
        )

    def _commit(self, event: events.Candidate) -> None:
        before = self._record(event.trial)
        rebased = before.candidate is not None and event.commit != before.candidate
        self._change(
            event.trial,
            candidate=event.commit,
            base=event.parent or before.proposal.parent,
            runs=() if rebased else before.runs,
            superseded=before.superseded + (before.runs if rebased else ()),
            revision=before.revision + rebased,
        )

    def _measure(self, event: events.Measured) -> None:
        run = event.measurement
        if event.trial and run.commit == (before := self._record(event.trial)).candidate:
            self._change(event.trial, runs=(*before.runs, run))
        if run.role == "stack":
            stack = next((s for s in reversed(self.stacks) if (s.commit, s.seed) == (run.commit, run.seed)), None)
            for trial in stack.edits if stack else ():
                self._change(trial, stacks=(*self._record(trial).stacks, run))
        self._close_run(run.trace)
        self.runs[run.commit] = (*self.runs.get(run.commit, ()), run)

    def _close_run(self, trace: str) -> None:
        self.started = [run for run in self.started if run.trace != trace]

    def _resume(self, event: events.Resumed, since: float) -> None:
        changes = dict(event.changes or {})
        self.settings = changes.pop("settings", self.settings)
        if changes:
            self.session = msgspec.convert({**fields_of(self.session), **changes}, SessionStarted)
        self.resumed += 1
        self.resumed_at = len(self.records)
        self.away += since
        self.ended = None

    def _record(self, number: int) -> Record:
        if not 0 < number <= len(self.records):  # -1 would be the last one
            raise LookupError(f"trial {number} was not asked for")
        return self.records[number - 1]

    def _change(self, number: int, **changes: Any) -> None:
        self.records[number - 1] = copy_with(self._record(number), changes)

    def state(self) -> State:
        """A frozen copy of what was folded so far."""
        frozen: Mapping[type, Callable[[Any], Any]] = {list: tuple, set: frozenset, dict: dict}
        copies = {name: frozen[type(value)](value) for name, value in vars(self).items() if type(value) in frozen}
        return State(**{**vars(self), **copies})


def fold(log: Iterable[Event], name: str = "ledger.jsonl") -> State:
    """The state that a list of events describes. It depends on nothing else."""
    builder = StateBuilder()
    builder.apply_all(log, name)
    return builder.state()


def lost_in_a_row(log: Sequence[Event]) -> int:
    """Runs lost to the machine since anything last worked."""
    count = 0
    for event in reversed(log):
        if isinstance(event, events.Lost):
            count += 1
        elif not isinstance(event, RunStarted | ServerProblem):
            break
    return count
