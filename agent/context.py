"""What a proposer is told before it proposes, and what every proposer can do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from agent.types import Goal, Measurement, Proposal, Record


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

    def replay(self, events: Iterable[Mapping[str, Any]]) -> None:
        """Bring a fresh proposer to where the asks and tells of a ledger left it."""
        ...
