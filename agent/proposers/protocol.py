"""Ask and tell: what every search method over the hyperparameter block can do.

Values are minimised; who maximises flips the sign before telling. A failure has no value.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from agent.errors import ReplyRejected
from agent.ledger.events import Event
from agent.types import Goal, Measurement, Proposal, Record, Value


@dataclass(frozen=True)
class Suggestion:
    """A configuration, and who drew it."""

    params: Mapping[str, Value]
    source: str  # cma, gp, tpe, random, smac, llm
    rationale: str = ""
    model: str = ""
    transcript: str = ""  # the conversation with a model, as Markdown
    usage: Mapping[str, float] = field(default_factory=dict)  # calls, tokens in and out, seconds
    search: Mapping[str, float] = field(default_factory=dict)  # state of the method when it drew this, for the report


class NoPoint(ReplyRejected):
    """The model answered, and there is no point in it; with the conversation, for the record."""

    def __init__(
        self, message: str, transcript: str = "", model: str = "", usage: Mapping[str, float] | None = None
    ) -> None:
        super().__init__(message)
        self.transcript, self.model, self.usage = transcript, model, dict(usage or {})


class SearchMethod(Protocol):
    """The least that is needed; also for other people's objectives."""

    def ask(self) -> dict[str, Value]:
        """The next configuration to try. Several may be open."""
        ...

    def tell(
        self,
        params: Mapping[str, Value],
        value: float | None,
        *,
        n: int = 1,
        status: str = "ok",
        memory_gb: float | None = None,
    ) -> None:
        """What came of a configuration, asked or not: the mean of ``n`` runs; None and a status for a failure."""
        ...


class SuggestingMethod(SearchMethod, Protocol):
    """What a session needs besides: who drew a point, and the state after a resume."""

    def suggest(self) -> Suggestion:
        """``ask``, with the source of the point.

        Raises:
            ModelUnavailable: no model answered. Nothing changed: the same call may be made again.
            ReplyRejected: a model answered, and there is no point in it. This ask is used up.
        """
        ...

    def replay(self, suggestion: Suggestion | None) -> None:
        """An ask of an earlier life of the session, with what it gave; None if it ended in ReplyRejected."""
        ...


@dataclass(frozen=True)
class Context:
    """The state of the night as a proposer may see it: everything but the test split."""

    parent: str  # commit that the edit applies to
    source: str  # text of the editable file there
    path: str
    history: tuple[Record, ...]
    incumbent_runs: tuple[Measurement, ...]
    noise_sd: float | None
    notes: str
    hardware: str
    budget: str
    trial: int
    seed: int
    plateau: int  # finished trials since the last keep
    metric: str
    goal: Goal
    transcripts: Path | None = None  # where prompt.md and reply.md go
    run_directory: Path | None = None
    baseline: str = ""  # text of the editable file before the night's first edit
    open: tuple[Record, ...] = ()  # trials under way, whose outcome nobody knows yet

    @property
    def best(self) -> float | None:
        values = [run.value for run in self.incumbent_runs if run.value is not None]
        return sum(values) / len(values) if values else None


class Proposer(Protocol):
    """What the session talks to."""

    def ask(self, context: Context) -> Proposal:
        """One idea. Raises ``ModelUnavailable`` when the model server fails."""
        ...

    def rebase(self, proposal: Proposal, source: str, path: str) -> str:
        """The edit of a proposal of this kind, on top of another text of the file than it was made for.

        Raises:
            PatchRejected: it has no place there; ``NoEffect``: it is there already.
        """
        ...

    def tell(self, record: Record) -> None:
        """The outcome of a trial, once, after its verdict."""
        ...

    def replay(self, events: Iterable[Event]) -> None:
        """Bring a fresh proposer to where the asks and tells of a ledger left it."""
        ...
