"""The contracts of this package: a session uses a ``Proposer``; ``BlockProposer`` uses a ``SearchMethod``."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from agent.ledger.events import Event
from agent.llm.api_keys import scrub
from agent.patch.apply import apply_reply
from agent.proposers.memory import Memory
from agent.space.space import Params
from agent.types import Goal, Measurement, Proposal, Record, Value

PLATEAU = 8  # trials without a keep, after which another kind of change is wanted


class SearchMethod(Protocol):
    """Ask and tell over the hyperparameter block. Values are minimised."""

    def ask(self) -> dict[str, Value]:
        """The next configuration to evaluate. Several asks may be open."""

    def tell(
        self, params: Params, value: float | None, *, n: int = 1, status: str = "ok", memory_gb: float | None = None
    ) -> None:
        """Report a result.

        Args:
            params: a configuration of the space, asked or not.
            value: mean over the runs; None for a failure.
            n: number of runs behind ``value``.
            status: ``ok``, or the kind of failure in any words.
            memory_gb: peak memory of a run.
        """


@dataclass(frozen=True)
class Context:
    """The state of the session that a proposer may use: everything but the test split."""

    parent: str  # commit that the edit applies to
    source: str  # text of the editable file at ``parent``
    path: str  # name of the editable file
    history: tuple[Record, ...]  # finished trials
    incumbent_runs: tuple[Measurement, ...]
    noise_sd: float | None  # standard deviation between runs of one commit; None while unknown
    notes: str  # the user's notes.md
    hardware: str
    budget: str
    trial: int  # number of the trial to propose
    seed: int
    plateau: int  # finished trials since the last keep
    metric: str
    goal: Goal
    transcripts: Path | None = None  # directory for the conversation with a model
    run_directory: Path | None = None
    baseline: str = ""  # text of the editable file before the first edit
    open: tuple[Record, ...] = ()  # other trials without a verdict
    failed: Record | None = None  # the trial whose edit failed before training, if the ask is for its repair
    memory: Memory = field(default_factory=Memory)  # trials of earlier sessions

    @property
    def best(self) -> float | None:
        """Mean value of the incumbent."""
        values = [run.value for run in self.incumbent_runs if run.value is not None]
        return sum(values) / len(values) if values else None

    @property
    def transcript(self) -> str:
        """``transcripts`` relative to the run directory; "" if there is none."""
        directory, run = self.transcripts, self.run_directory
        if directory is None:
            return ""
        return directory.relative_to(run).as_posix() if run and directory.is_relative_to(run) else directory.name

    def write(self, name: str, text: str) -> None:
        """Write a file of the conversation without API keys, if there is a directory for it."""
        if self.transcripts is not None:
            self.transcripts.mkdir(parents=True, exist_ok=True)
            (self.transcripts / name).write_text(scrub(text), encoding="utf-8", errors="replace")


class Proposer(Protocol):
    """Ask and tell over the editable file. ``rebase`` and ``replay`` serve parallel trials and resume.

    The defaults are for a proposer whose state follows from the Context alone, which holds every record.
    """

    @abstractmethod
    def ask(self, context: Context) -> Proposal:
        """The next edit.

        Raises:
            ModelUnavailable: the model server does not answer; the same call may be repeated.
            SearchExhausted: every configuration of the search space was proposed.
        """

    def tell(self, record: Record) -> None:
        """Report a trial: once, after its verdict."""
        return

    def rebase(self, proposal: Proposal, source: str, path: str) -> str:
        """``source``, a newer text of the file, with the edit of ``proposal``.

        Raises:
            PatchRejected: the edit does not apply to ``source``.
            NoEffect: ``source`` already contains the edit.
        """
        return apply_reply(source, proposal.diff, path)

    def replay(self, events: Iterable[Event]) -> None:
        """Restore the state of a new proposer from the asks and tells of a ledger."""
        return
