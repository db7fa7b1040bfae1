"""The state of a session: a fold of its ledger's events."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from statistics import fmean
from typing import Any

from agent.errors import OvernightError
from agent.types import Measurement, Proposal, Record, Verdict, build, from_json

Event = Mapping[str, Any]

RETRIES = 3  # lost runs in a row per worker after which a session or replay stops


class LedgerDamaged(OvernightError):
    """A line in the middle of the ledger does not parse, or does not fit those before it."""


@dataclass(frozen=True)
class State:
    """What a ledger says. ``records[k]`` is trial ``k + 1``; trial 0 is the baseline, with its ``baseline_runs``."""

    session: Mapping[str, Any] = field(default_factory=dict)
    records: tuple[Record, ...] = ()
    runs: Mapping[str, tuple[Measurement, ...]] = field(default_factory=dict)  # by measured commit, in order of time
    started: tuple[Event, ...] = ()  # runs that were started and neither measured nor lost
    told: frozenset[int] = frozenset()
    moved: Mapping[int, str] = field(default_factory=dict)  # trial → accepted commit
    lost: int = 0
    resumed: int = 0
    ended: str | None = None
    last_time: float = 0.0
    resumed_at: int = 0  # trials that were asked for before the session was last resumed
    away: float = 0.0  # seconds from the last event before each resume to that resume
    keeps: tuple[int, ...] = ()  # trials that were kept, in the order of their verdicts
    open: tuple[int, ...] = ()  # trials under way: asked, neither judged nor ended before they ran

    @property
    def baseline(self) -> str:
        return str(self.session.get("baseline", ""))

    @property
    def head(self) -> str:
        """The accepted commit that the branch stands on."""
        return list(self.moved.values())[-1] if self.moved else self.baseline

    @property
    def incumbent(self) -> str:
        """The measured commit of the present best: the baseline, or the candidate of the trial that was kept last."""
        return (self.records[self.keeps[-1] - 1].candidate or self.baseline) if self.keeps else self.baseline

    def measured(self, accepted: str) -> str:
        """The commit that was measured before its tree became ``accepted`` on the branch."""
        return next((r.candidate for r in self.kept if r.accepted == accepted and r.candidate), self.baseline)

    @property
    def baseline_runs(self) -> tuple[Measurement, ...]:
        return self.runs.get(self.baseline, ())

    @property
    def open_records(self) -> tuple[Record, ...]:
        """The trials under way, the oldest first: several where several devices train, or ideas are asked for ahead."""
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
        """Trial 0: the unchanged target, as the search methods and results.tsv see it."""
        values = [run.value for run in self.baseline_runs if run.value is not None and run.role != "test"]
        value = fmean(values) if values else None
        verdict = Verdict("keep", value, None, None, None, len(values), 0, max(len(values) - 1, 0), "baseline")
        proposal = Proposal("baseline", "baseline", self.baseline, "", subject="baseline")
        return Record(0, proposal, candidate=self.baseline, runs=self.baseline_runs, verdict=verdict)


class Folder:
    """Folds events one by one. Mutable, so that 10,000 trials take a second and not an hour."""

    def __init__(self) -> None:
        self.session: Mapping[str, Any] = {}
        self.records: list[Record] = []
        self.runs: dict[str, list[Measurement]] = {}
        self.started: list[Event] = []
        self.told: set[int] = set()
        self.moved: dict[int, str] = {}
        self.lost = self.resumed = self.resumed_at = 0
        self.ended: str | None = None
        self.last_time = self.away = 0.0
        self.keeps: list[int] = []
        self.open: dict[int, None] = {}
        self._since = 0.0  # seconds between the last two events

    def take(self, event: Event) -> None:
        """Raises ``LedgerDamaged`` for an event that lacks something, or is of a trial that nobody asked for."""
        try:
            now = float(event["time"])
            self._since = max(0.0, now - self.last_time) if self.last_time else 0.0  # 0 for a clock that was set back
            self.last_time = now
            getattr(self, "on_" + event["event"])(event)
        except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
            raise LedgerDamaged(f"an event {event['event']!r} does not fit those before it: {error!r}") from error

    def take_all(self, events: Iterable[Event], name: str) -> None:
        """The events of a whole ledger. Raises ``LedgerDamaged``: names the line."""
        for number, event in enumerate(events, start=1):
            try:
                self.take(event)
            except LedgerDamaged as error:
                raise LedgerDamaged(f"{name}, line {number}: {error}") from error

    def on_session(self, event: Event) -> None:
        self.session = event

    def on_asked(self, event: Event) -> None:
        if event["trial"] != len(self.records) + 1:
            raise ValueError(f"trial {event['trial']}, where the next one is {len(self.records) + 1}")
        proposal = from_json(Proposal, event["proposal"])
        ended = event["time"] if proposal.ending else None
        started = event.get("started", event["time"])
        waited = event.get("waited", self._since)
        self.records.append(Record(event["trial"], proposal, started=started, ended=ended, asking=waited))
        if not proposal.ending:
            self.open[event["trial"]] = None

    def on_candidate(self, event: Event) -> None:
        before, commit = self._record(event["trial"]), event["commit"]
        again = before.candidate is not None and commit != before.candidate  # on top of a head that has moved on
        self._change(
            before.number,
            candidate=commit,
            base=event.get("parent", before.proposal.parent),
            runs=() if again else before.runs,
            superseded=before.superseded + (before.runs if again else ()),
            revision=before.revision + again,
        )

    def on_run_started(self, event: Event) -> None:
        self.started.append(event)

    def on_measured(self, event: Event) -> None:
        run = from_json(Measurement, event["measurement"])
        self.started = [s for s in self.started if s["trace"] != run.trace]
        self.runs.setdefault(run.commit, []).append(run)
        number = event["trial"]
        if number and run.commit == (before := self._record(number)).candidate:
            self._change(number, runs=(*before.runs, run))

    def on_lost(self, event: Event) -> None:
        self.started = [s for s in self.started if s["trace"] != event["trace"]]
        self.lost += 1

    def on_judged(self, event: Event) -> None:
        verdict = from_json(Verdict, event["verdict"])
        self._change(event["trial"], verdict=verdict, ended=event["time"])
        self.open.pop(event["trial"], None)
        if verdict.decision == "keep":
            self.keeps.append(event["trial"])

    def on_told(self, event: Event) -> None:
        self.told.add(event["trial"])

    def on_moved(self, event: Event) -> None:
        self.moved[event["trial"]] = event["commit"]
        self._change(event["trial"], accepted=event["commit"])

    def on_resumed(self, event: Event) -> None:
        self.resumed += 1
        self.resumed_at = len(self.records)
        self.session = {**self.session, **event.get("changes", {})}
        self.away += self._since
        self.ended = None

    def on_ended(self, event: Event) -> None:
        self.ended = event["reason"]

    def _record(self, number: int) -> Record:
        if not 0 < number <= len(self.records):  # -1 would be the last one
            raise LookupError(f"nobody asked for trial {number}")
        return self.records[number - 1]

    def _change(self, number: int, **changes: Any) -> None:
        self.records[number - 1] = build(Record, {**vars(self._record(number)), **changes})

    def state(self) -> State:
        return State(
            self.session,
            tuple(self.records),
            {commit: tuple(runs) for commit, runs in self.runs.items()},
            tuple(self.started),
            frozenset(self.told),
            dict(self.moved),
            self.lost,
            self.resumed,
            self.ended,
            self.last_time,
            self.resumed_at,
            self.away,
            tuple(self.keeps),
            tuple(self.open),
        )


def fold(events: Iterable[Event], name: str = "ledger.jsonl") -> State:
    """The state that a list of events describes. ``fold(a + b)`` depends on nothing but the events."""
    folder = Folder()
    folder.take_all(events, name)
    return folder.state()


def iterate(events: Iterable[Event], kind: str) -> Iterator[Event]:
    """The events of one kind, in order."""
    return (event for event in events if event["event"] == kind)


def lost_in_a_row(events: Sequence[Event]) -> int:
    """Runs lost to the machine since anything last worked."""
    count = 0
    for event in reversed(events):
        if event["event"] == "lost":
            count += 1
        elif event["event"] != "run_started":
            break
    return count
