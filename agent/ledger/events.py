"""The events of a ledger: one frozen class for each, and their JSON lines.

``decode`` and ``encode`` are inverse functions. A line holds the schema version ``v``, the name of the event in
``event``, its ``time`` and the fields of its class. Unknown fields are ignored.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal, Union

import msgspec
from msgspec import UNSET, UnsetType

from agent.types import Goal, Measurement, Proposal, Role, Verdict, Weight, to_json

SCHEMA = 1
UNSTAMPED = -1.0  # time of an event that is not in a ledger yet


class NotAnEvent(ValueError):
    """A JSON object that is not an event of this schema."""


class Event(msgspec.Struct, frozen=True, kw_only=True, tag_field="event"):
    """One line of a ledger."""

    v: Literal[1] = 1
    time: float = UNSTAMPED  # seconds since the epoch; ``Ledger.append`` sets it


class OfTrial(Event, frozen=True, kw_only=True):
    """An event of one trial."""

    trial: int  # 0 is the baseline


class SessionStarted(Event, frozen=True, kw_only=True, tag="session"):
    """The first event: what the session works on. Fields that an older ledger lacks take their default."""

    kind: str | UnsetType = UNSET  # "replay" or "promote" in their ledgers, as are the next three fields
    what: str | UnsetType = UNSET  # name of the run or branch that is trained again
    commits: tuple[str, ...] | UnsetType = UNSET  # that are measured
    exact: bool | UnsetType = UNSET  # whether the replay follows the recorded schedules
    tag: str = ""
    baseline: str = ""  # commit of the unchanged target
    metric: str = "value"
    goal: Goal = "minimize"
    proposer: str = ""
    sandbox: str = ""
    policy: str = ""
    seed: int = 0
    budget: str = ""
    trials: int | None = None  # planned number of trials
    workers: int = 1
    device: str = ""  # UUID of a GPU, or its kind
    target: str = ""
    path: str = "train.py"  # of the edited file in the repository
    self_reported: bool = False  # the edited code prints the value itself
    data: str = ""  # hash of the prepared data
    program: str = ""  # normal form of the edited file at the baseline; "" if it is not Python
    memory: tuple[str, ...] = ()  # earlier sessions of which the proposer knows the trials

    @property
    def began(self) -> float | None:
        """Time of the event; None for a ledger without one."""
        return None if self.time == UNSTAMPED else self.time


class Planned(Event, frozen=True, kw_only=True, tag="planned"):
    """What a replay or promotion measures, and with what its results are compared. The latest event counts."""

    plan: Mapping[str, Any]  # JSON form of ``agent.replay.plan.Plan``


class Asked(OfTrial, frozen=True, kw_only=True, tag="asked"):
    """A proposal arrived. It opens a trial, unless ``proposal.ending`` is set."""

    started: float | None = None  # when it was asked for
    waited: float | None = None  # seconds in which nothing else was under way
    proposal: Proposal


class Repaired(OfTrial, frozen=True, kw_only=True, tag="repaired"):
    """The model answered to the failure of its edit before training.

    ``proposal`` replaces the edit of the trial, unless its ``ending`` is set.
    """

    waited: float = 0.0  # seconds in which nothing else was under way
    proposal: Proposal


class Candidate(OfTrial, frozen=True, kw_only=True, tag="candidate"):
    """The edit of a trial was committed, for the first time or on top of a newer head."""

    commit: str
    ref: str = ""
    parent: str = ""  # accepted commit that it stands on


class RunStarted(OfTrial, frozen=True, kw_only=True, tag="run_started"):
    """A run was handed to a worker."""

    commit: str
    role: Role
    seed: int
    trace: str  # directory of the run's files, relative to the run directory


class Measured(OfTrial, frozen=True, kw_only=True, tag="measured"):
    """A run ended with a measurement."""

    measurement: Measurement


class Judged(OfTrial, frozen=True, kw_only=True, tag="judged"):
    """A trial ended with a verdict."""

    verdict: Verdict


class Observed(OfTrial, frozen=True, kw_only=True, tag="told"):
    """The proposer has received the outcome of a trial."""


class Moved(OfTrial, frozen=True, kw_only=True, tag="moved"):
    """The head moved to the accepted commit of a trial."""

    commit: str


class Stacked(OfTrial, frozen=True, kw_only=True, tag="stacked"):
    """Policy stacked: a commit with several undecided edits was built, to be run once. ``trial`` holds its files."""

    commit: str
    ref: str
    base: str  # the kept edits, without any undecided one
    edits: tuple[int, ...]  # undecided trials whose edits it carries
    new: tuple[int, ...] = ()  # those that no earlier run carried
    seed: int = 0


class Weighed(OfTrial, frozen=True, kw_only=True, tag="weighed"):
    """Policy stacked: what each undecided edit is worth after a run of ``trial``. For people; nothing depends on it."""

    edits: tuple[Weight, ...]


class Published(OfTrial, frozen=True, kw_only=True, tag="published"):
    """Policy stacked: the head moved to the accepted commit of ``trial``, past those of other trials.

    The tree of the last commit ran; those between were not run alone.
    """

    trials: tuple[int, ...]
    commits: tuple[str, ...]


class Lost(OfTrial, frozen=True, kw_only=True, tag="lost"):
    """A run ended without a measurement: the machine failed, or the session was interrupted."""

    trace: str
    reason: str = ""


class ServerProblem(Event, frozen=True, kw_only=True, tag="server_problem"):
    """The model server that sleeps during runs was wrong after a sleep or a wake; see ``llm.sleeping_server``."""

    problem: str
    action: str  # restarted; split: without sleep mode from now on; waiting; noted: it goes on


class Resumed(Event, frozen=True, kw_only=True, tag="resumed"):
    """A session goes on after an interruption."""

    attempt: int = 0
    changes: Mapping[str, Any] | UnsetType = UNSET  # fields of ``SessionStarted``; ``settings``: changed settings


class Ended(Event, frozen=True, kw_only=True, tag="ended"):
    """A session ended, for this reason."""

    reason: str


EVENTS: Mapping[str, type[Event]] = {
    str(kind.__struct_config__.tag): kind
    for kind in (*Event.__subclasses__(), *OfTrial.__subclasses__())
    if kind is not OfTrial
}
_ANY: Any = Union[tuple(EVENTS.values())]  # noqa: UP007
_decode = msgspec.json.Decoder(_ANY).decode
_decode_text = json.JSONDecoder().raw_decode


def name_of(event: Event) -> str:
    """The name of an event in the ledger: ``run_started`` for ``RunStarted``."""
    return str(event.__struct_config__.tag)


def fields_of(event: Event) -> dict[str, Any]:
    """The JSON object of an event, in the order in which it is written."""
    names = (name for name in event.__struct_fields__ if name not in ("v", "time"))
    values = {name: to_json(value) for name in names if (value := getattr(event, name)) is not UNSET}
    return {"v": event.v, "event": name_of(event), "time": event.time, **values}


def encode(event: Event) -> bytes:
    """The line of an event, with its line feed.

    msgspec is not used here: it writes NaN as null, and has no words for half a surrogate or for numpy's floats.

    Raises:
        ValueError: a number is not finite.
    """
    text = json.dumps(fields_of(event), ensure_ascii=False, allow_nan=False)
    return text.encode(errors="backslashreplace") + b"\n"


def decode(line: bytes) -> Event:
    """The event of one line.

    Raises:
        NotAnEvent: the line is a JSON object, but not an event of this schema.
        ValueError: the line is not a JSON object.
    """
    try:
        event: Event = _decode(line)
    except (ValueError, RecursionError):
        event = _lenient(line)
    if event.time == UNSTAMPED:
        raise NotAnEvent("it has no time")
    return event


def _lenient(line: bytes) -> Event:
    """Decode what Python's json writes and strict JSON rejects, such as half a surrogate; say what is wrong."""
    text = line.decode("utf-8", "surrogatepass").strip()
    try:
        fields, end = _decode_text(text)  # json.loads() would guess the encoding of bytes
    except RecursionError:
        raise NotAnEvent("nested too deeply") from None
    if not isinstance(fields, dict):
        raise ValueError("not an event")
    if end != len(text):
        raise NotAnEvent("more than one event")
    if fields.get("event") not in list(EVENTS):  # it may be unhashable
        raise NotAnEvent("not an event")
    if fields.get("v") != SCHEMA:
        raise NotAnEvent(f"schema {fields.get('v')!r}, this version reads {SCHEMA}")
    try:
        event: Event = msgspec.convert(fields, _ANY)
    except (ValueError, OverflowError, RecursionError) as error:
        raise NotAnEvent(str(error)) from None
    return event
