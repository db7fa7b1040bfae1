"""The frozen data that the stages of a session hand to one another, and their JSON form.

``msgspec.convert(to_json(value), Type)`` rebuilds every type unchanged, so the ledger can hold all of them.
A failure has no value: ``None``, never 0 and never 100.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

Value = int | float | str | bool

ParamKind = Literal["int", "float", "categorical"]
Role = Literal["calibrate", "screen", "confirm", "incumbent", "reserve", "replay", "test"]
Status = Literal["ok", "crash", "oom", "diverged", "timeout", "over_budget", "invalid"]
Ending = Literal["patch_rejected", "duplicate", "no_effect", "model_failed"]  # proposals that never ran
Decision = Literal["keep", "revert"]
Goal = Literal["minimize", "maximize"]


@dataclass(frozen=True)
class Param:
    """One value of the hyperparameter block that a search method may change. ``low`` and ``high`` are inclusive."""

    name: str
    kind: ParamKind
    default: Value
    low: float | None = None
    high: float | None = None
    log: bool = False
    power_of_two: bool = False
    choices: tuple[Value, ...] = ()


@dataclass(frozen=True)
class Proposal:
    """One idea: a unified diff against ``parent``, or the reason why there is none (``ending``)."""

    proposer: str
    source: str  # what drew the point or wrote the diff: llm, cma, gp, tpe, random, ...
    parent: str  # commit that the diff applies to
    diff: str
    params: Mapping[str, Value] | None = None
    subject: str = ""
    rationale: str = ""
    category: str = ""
    model: str = ""
    transcript: str = ""  # path inside the run directory
    ending: Ending | None = None
    reason: str = ""  # why it ended before it ran
    form: str = ""  # normal form of the edited file: two proposals with the same one are the same program
    text: str | None = None  # the whole edited file when the proposer has applied its own diff
    usage: Mapping[str, float] = field(default_factory=dict)  # calls, tokens in and out, seconds
    search: Mapping[str, float] = field(default_factory=dict)  # state of the search method when it drew this


@dataclass(frozen=True)
class Measurement:
    """One training run of one commit, scored or failed."""

    commit: str
    role: Role
    seed: int
    device: str
    status: Status
    value: float | None
    metrics: Mapping[str, float] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)  # startup, training, scoring, overhead
    peak_memory_gb: float | None = None
    reason: str = ""  # one line: what failed, or what was caught
    log_tail: str = ""
    self_reported: bool = False  # the number was printed by the code that was edited
    trace: str = ""  # path of the run's files inside the run directory
    initial_hash: str = ""  # of the weights before training; equal under different seeds means a pinned seed
    attempt: int = 0
    device_type: str = ""  # values and noise of different types cannot be compared; "" in ledgers from before

    def on(self, device_type: str) -> bool:
        """Whether the run counts for devices of this type; "" is any."""
        return not device_type or self.device_type in ("", device_type)


Progress = Callable[[str, Mapping[str, Any]], None]  # is told the phase of a run, and what is known of it


@dataclass(frozen=True)
class Failure:
    """Why a run has no value."""

    status: Status
    reason: str


@dataclass(frozen=True)
class Verdict:
    """What the judge decided, and all it knew. ``gain`` is positive when the candidate is better, whatever the goal."""

    decision: Decision
    value: float | None
    best_before: float | None
    gain: float | None
    gain_se: float | None
    n: int
    n_before: int
    dof: int
    reason: str


@dataclass(frozen=True)
class Record:
    """One trial: a fold of the ledger."""

    number: int
    proposal: Proposal
    candidate: str | None = None  # commit with the edit; none for proposals that never ran
    runs: tuple[Measurement, ...] = ()
    verdict: Verdict | None = None
    accepted: str | None = None  # commit on head, when kept
    started: float = 0.0  # seconds since the epoch
    ended: float | None = None
    asking: float = 0.0  # seconds that were spent on nothing but waiting for the proposal
    base: str = ""  # accepted commit that the candidate stands on
    superseded: tuple[Measurement, ...] = ()  # runs of the candidate before it was rebased
    revision: int = 0  # how often it was

    @property
    def parent(self) -> str:
        """Accepted commit that the edit stands on: later than the one it was proposed for if the branch moved on."""
        return self.base or self.proposal.parent

    @property
    def decision(self) -> Decision:
        return self.verdict.decision if self.verdict else "revert"

    @property
    def status(self) -> str:
        """``ok``, the status of the failed run, or why the proposal never ran."""
        if self.proposal.ending:
            return self.proposal.ending
        failed = [run.status for run in self.runs if run.status != "ok" and run.role != "test"]
        judged = self.verdict is not None and self.verdict.value is not None  # without runs: their lines are damaged
        if not self.runs and self.verdict is not None and not judged and not self.superseded:
            return "patch_rejected"  # the branch had moved on before it could begin, to where it does not apply
        return failed[0] if failed else ("ok" if self.runs or self.superseded or judged else "lost")

    @property
    def values(self) -> tuple[float, ...]:
        """Of the runs on the validation split; the test split is for people, and apart."""
        return tuple(run.value for run in self.runs if run.value is not None and run.role != "test")


T = TypeVar("T")


def to_json(value: Any) -> Any:
    """A structure of dicts, lists, strings, numbers and None for any type of this module."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_json(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(k): to_json(v) for k, v in value.items()}
    if isinstance(value, (tuple, list)):
        return [to_json(v) for v in value]
    return value


def copy_with(value: T, changes: Mapping[str, Any]) -> T:
    """``dataclasses.replace`` for a dataclass without ``__post_init__``, four times as fast."""
    made = object.__new__(type(value))
    vars(made).update(vars(value), **changes)
    return made
