"""The frozen data that the stages of a session pass on, and their JSON form.

``msgspec.convert(to_json(value), Type)`` rebuilds every type unchanged, so the ledger can hold all of them.
The value of a failed run is ``None``.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeGuard, TypeVar

Value = int | float | str | bool
LARGEST_VALUE = 1e30  # of a metric: beyond it a run is invalid; no mean or variance of smaller values overflows

ParamKind = Literal["int", "float", "categorical"]
Role = Literal["calibrate", "screen", "confirm", "incumbent", "reserve", "replay", "stack", "test"]
Status = Literal["ok", "crash", "oom", "diverged", "timeout", "over_budget", "invalid", "stopped"]
Ending = Literal["patch_rejected", "duplicate", "no_effect", "model_failed"]  # proposals that never ran
Decision = Literal["keep", "revert"]
Goal = Literal["minimize", "maximize"]


def minimised(value: float, goal: Goal) -> float:
    """Return ``value`` so that lower is better: negated for ``maximize``; also the inverse."""
    return value if goal == "minimize" else -value


def is_number(value: object) -> TypeGuard[float]:
    """Whether ``value`` is a finite int or float; a boolean is not."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and -math.inf < value < math.inf


@dataclass(frozen=True)
class Param:
    """One value of the hyperparameter block that a search method may change."""

    name: str
    kind: ParamKind
    default: Value
    low: float | None = None  # inclusive, as ``high``
    high: float | None = None
    log: bool = False
    power_of_two: bool = False
    choices: tuple[Value, ...] = ()


@dataclass(frozen=True)
class Answer:
    """One reply of a model to the request for an edit."""

    form: str  # diff, blocks (search and replace) or file; "" without an edit
    applied: bool
    hash: str  # of the text: equal replies have equal hashes
    problem: str = ""  # loop: it repeats itself; length: it was cut off at its token limit


@dataclass(frozen=True)
class IdeaUse:
    """The part of the idea bank in a proposal. Ideas are named by their keys, the file names without .md."""

    taken: str  # the idea that the edit takes up; "" for none
    shown: tuple[str, ...] = ()  # ideas in the prompt
    left: int = 0  # ideas that no earlier attempt of the run had taken up


@dataclass(frozen=True)
class Proposal:
    """A unified diff against ``parent``, or the reason why there is none (``ending``)."""

    proposer: str
    source: str  # origin of the point or the diff: llm, cma, gp, tpe, random, ...
    parent: str  # commit that the diff applies to
    diff: str
    params: Mapping[str, Value] | None = None
    subject: str = ""
    rationale: str = ""
    category: str = ""
    model: str = ""
    transcript: str = ""  # path inside the run directory
    ending: Ending | None = None
    reason: str = ""  # why it never ran
    form: str = ""  # hash of the edited file's normal form: equal for equal programs
    text: str | None = None  # the edited file, if the proposer has applied its diff itself
    usage: Mapping[str, float] = field(default_factory=dict)  # of the model: calls, tokens in and out, seconds
    search: Mapping[str, float] = field(default_factory=dict)  # state of the search method when it drew the point
    answers: tuple[Answer, ...] = ()  # of the model, oldest first
    ideas: IdeaUse | None = None  # None without an idea bank
    loop: str = ""  # why the model's answers count as a loop; another ``source`` stands in for the model


@dataclass(frozen=True)
class Prediction:
    """What the loss curve of a run foretold when the run was, or would have been, cut short."""

    progress: float  # share of the budget, 0 to 1
    value: float
    gain: float  # over the incumbent under the same seed; positive is better
    se: float  # standard error of value and gain


@dataclass(frozen=True)
class Measurement:
    """One training run of one commit: scored, failed, or stopped since it was certain to lose."""

    commit: str
    role: Role
    seed: int
    device: str
    status: Status
    value: float | None
    metrics: Mapping[str, float] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)  # startup, training, scoring, overhead
    peak_memory_gb: float | None = None
    reason: str = ""  # one line: why the run has no value
    log_tail: str = ""
    self_reported: bool = False  # the edited code printed the value itself
    trace: str = ""  # path of the run's files inside the run directory
    initial_hash: str = ""  # of the weights before training: equal under different seeds if the seed is pinned
    attempt: int = 0
    device_type: str = ""  # only values of one type can be compared; "" in old ledgers
    losses: tuple[float, ...] = ()  # of training, at the milestones of ``agent.judge.hopeless``; the edit reports them
    prediction: Prediction | None = None  # of a stopped run, and of one that was finished to check its prediction

    def __post_init__(self) -> None:
        # here, so that ledgers of earlier versions, which hold such values, stay readable
        if self.value is not None and not abs(self.value) <= LARGEST_VALUE:
            reason = f"the value {self.value:.4g} is beyond ±{LARGEST_VALUE:g}"
            vars(self).update(value=None, status="invalid", reason=reason)

    @property
    def counts(self) -> bool:
        """Whether the run has a value on the validation split."""
        return self.value is not None and self.role != "test"

    def on(self, device_type: str) -> bool:
        """Whether the run counts for devices of this type. "" is any type."""
        return not device_type or self.device_type in ("", device_type)


def on_validation(runs: Iterable[Measurement]) -> tuple[Measurement, ...]:
    """The runs without those that only score a checkpoint on the test split."""
    return tuple(run for run in runs if run.role != "test")


def values_of(runs: Iterable[Measurement]) -> list[float]:
    """The values on the validation split."""
    return [run.value for run in runs if run.value is not None and run.role != "test"]


Progress = Callable[[str, Mapping[str, Any]], None]  # receives the phase of a run, and its figures


@dataclass(frozen=True)
class Failure:
    """Why a run has no value."""

    status: Status
    reason: str


@dataclass(frozen=True)
class Verdict:
    """What the judge decided, and from which figures."""

    decision: Decision
    value: float | None
    best_before: float | None  # value of the incumbent
    gain: float | None  # positive if the candidate is better, for either goal
    gain_se: float | None  # standard error of the gain
    n: int  # runs of the candidate
    n_before: int  # runs of the incumbent
    dof: int  # degrees of freedom of the noise
    reason: str
    pairs: int = 0  # seeds that candidate and incumbent both ran
    probability: float | None = None  # that the edit is a gain; policy confirm

    def __post_init__(self) -> None:
        for name in ("value", "best_before", "gain", "gain_se"):  # in ledgers of earlier versions: see ``Measurement``
            figure = vars(self)[name]
            if figure is not None and not abs(figure) <= LARGEST_VALUE:
                vars(self)[name] = math.copysign(LARGEST_VALUE, figure)


@dataclass(frozen=True)
class Repair:
    """A request to the model to repair an edit that failed before training."""

    proposal: Proposal  # what failed; of a reply without an edit, that reply
    runs: tuple[Measurement, ...] = ()  # of that edit


@dataclass(frozen=True)
class Weight:
    """What the runs of a stacked session say about one edit. Gains are positive when better."""

    trial: int
    probability: float  # that the edit is a gain
    gain: float  # posterior mean
    se: float  # posterior standard deviation
    runs_in: int  # runs that carried it
    runs_out: int  # runs since its first that did not
    mean_in: float  # their mean values
    mean_out: float | None
    nominated: bool = False  # likely to be a gain


@dataclass(frozen=True)
class Record:
    """One trial, as the ledger describes it."""

    number: int
    proposal: Proposal
    candidate: str | None = None  # commit with the edit; None for a proposal that never ran
    runs: tuple[Measurement, ...] = ()
    verdict: Verdict | None = None
    accepted: str | None = None  # commit on head, when kept
    started: float = 0.0  # seconds since the epoch
    ended: float | None = None
    asking: float = 0.0  # seconds in which the session waited for the proposal only
    base: str = ""  # accepted commit below the candidate
    superseded: tuple[Measurement, ...] = ()  # runs of the candidate before it was rebased
    revision: int = 0  # number of rebases and repairs
    repairs: tuple[Repair, ...] = ()  # oldest first; ``proposal`` is the repaired edit
    stacks: tuple[Measurement, ...] = ()  # runs that carried the edit among others; policy stacked

    @property
    def proposals(self) -> tuple[Proposal, ...]:
        """Every answer of the proposer, the edit of the trial last."""
        return (*(repair.proposal for repair in self.repairs), self.proposal)

    @property
    def failed_forms(self) -> frozenset[str]:
        """Normal forms of the versions that failed before they were repaired."""
        return frozenset(r.proposal.form for r in self.repairs if r.proposal.form and not r.proposal.ending)

    @property
    def parent(self) -> str:
        """The accepted commit below the edit: the one it was proposed for, or a later one after a rebase."""
        return self.base or self.proposal.parent

    @property
    def decision(self) -> Decision:
        return self.verdict.decision if self.verdict else "revert"

    @property
    def status(self) -> str:
        """``ok``, the status of the failed run, or why the proposal never ran."""
        if self.proposal.ending:
            return self.proposal.ending
        if failed := [run.status for run in on_validation(self.runs) if run.status != "ok"]:
            return failed[0]
        if self.stacks and (self.verdict is None or self.verdict.value is not None):
            return "ok"
        if self.stacks and self.stacks[-1].status != "ok":
            return self.stacks[-1].status
        if self.runs or self.superseded:
            return "ok"
        if self.verdict is None:
            return "lost"
        return "patch_rejected" if self.verdict.value is None else "ok"  # it does not apply to a head that moved

    @property
    def failed(self) -> bool:
        """Whether the trial has no value and no prediction of one."""
        return self.status not in ("ok", "stopped")

    @property
    def values(self) -> tuple[float, ...]:
        """Values on the validation split."""
        return tuple(values_of(self.runs))


T = TypeVar("T")


def to_json(value: Any) -> Any:
    """A structure of dicts, lists, strings, numbers and None, for any type of this module."""
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
