"""Asks the model to repair an edit that failed before it had used its budget, as part of the same trial."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from agent.ledger.state import State
from agent.proposers.protocol import Context
from agent.session.in_flight import Ideas
from agent.session.stopping import EndOfNight
from agent.target import Budget
from agent.types import Record

EARLY = 0.05  # share of the training time up to which a failure is repaired
REPAIRABLE = ("crash", "oom", "diverged")


@dataclass(frozen=True)
class Repairs:
    """Repairs of edits that a model wrote."""

    ideas: Ideas
    ending: EndOfNight
    describe: Callable[..., Context]
    budget: Budget  # of a run
    most: int  # requests per trial; 0 for proposers that do not edit code

    def ask(self, record: Record, state: State) -> bool:
        """Ask for a repair if one is due. Whether the trial has to wait for one."""
        pending = self.ideas.pending
        if pending is not None and pending.context.trial == record.number:
            return True
        due = self.is_due(record) and not self.ideas.problem and not self.ending.before(state, record.number)
        if due and self.ideas.free:
            self.ideas.ask(self.describe(state, failed=record))
        return due

    def is_due(self, record: Record) -> bool:
        """Whether the edit failed early, and its last repair was usable."""
        proposal, earlier = record.proposal, record.repairs
        if proposal.source != "llm" or proposal.params is not None or len(earlier) >= self.most:
            return False
        usable = not (earlier and earlier[-1].proposal.ending)
        return (
            usable
            and bool(record.runs)
            and all(
                run.status in REPAIRABLE and run.seconds.get("training", 0.0) <= EARLY * self.budget.wall_seconds
                for run in record.runs
            )
        )
