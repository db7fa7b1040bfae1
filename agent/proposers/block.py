"""``BlockProposer`` turns a search method over the hyperparameter block into a proposer of unified diffs.

A point is rendered into the block and becomes a diff, which is applied like a model's edit.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from statistics import fmean

from agent.errors import NoEffect, PatchRejected, ReplyRejected
from agent.ledger.events import Asked, Event, Observed
from agent.ledger.state import StateBuilder
from agent.llm.prompts import cut_notes, one_line
from agent.patch.apply import unified_diff
from agent.patch.normal_form import program_of
from agent.proposers.memory import Memory
from agent.proposers.protocol import Context
from agent.proposers.search.base import Method, NoPoint, Suggestion, Terms
from agent.proposers.search.prompt_tables import show
from agent.space.space import Params, SearchSpace
from agent.types import Goal, Proposal, Record, minimised

UNCHANGED = "the same values as the present best"


class BlockProposer:
    """A ``Proposer`` that edits the block of the incumbent with the points of ``method``, which minimises."""

    def __init__(self, name: str, method: Method, space: SearchSpace, goal: Goal):
        self.name, self.method, self.space, self.goal = name, method, space, goal
        self._memory, self._source = Memory(), ""
        self._from_elsewhere = 0  # points of earlier sessions that the method knows

    def start_from(self, memory: Memory, source: str) -> None:
        """After the baseline, report points of ``memory`` that give the same program in ``source``, its text."""
        self._memory, self._source = memory, source

    def ask(self, context: Context) -> Proposal:
        before = self.space.read(context.source)
        self.method.terms = Terms(one_line(context.metric) or "loss", self.goal, cut_notes(context.notes))
        try:
            found: Suggestion | NoPoint = self.method.suggest()
        except ReplyRejected as error:
            found = error if isinstance(error, NoPoint) else NoPoint(str(error))
        if found.transcript:
            context.write("conversation.md", found.transcript)
        proposal = Proposal(
            proposer=self.name,
            source="llm",
            parent=context.parent,
            diff="",
            subject="No usable configuration",
            category="hyperparameters",
            model=found.model,
            transcript=context.transcript if found.transcript else "",
            usage=dict(found.usage),
        )
        if isinstance(found, NoPoint):
            return replace(proposal, ending="model_failed", reason=str(found))
        elsewhere = {"from_earlier_runs": self._from_elsewhere} if self._from_elsewhere else {}
        text = self.space.render(context.source, found.params)
        proposal = replace(
            proposal,
            source=found.source,
            params=dict(found.params),
            subject=subject(before, found.params),
            rationale=found.rationale,
            search={**found.search, **elsewhere},
        )
        if not (diff := unified_diff(context.source, text, context.path)):
            return replace(proposal, ending="no_effect", reason=UNCHANGED)
        return replace(proposal, diff=diff, form=program_of(text))

    def tell(self, record: Record) -> None:
        params = record.proposal.params if record.number else self.space.defaults
        if params is None:
            return
        value, runs = minimised_value(record, self.goal), max(len(record.values), 1)
        status = record.status if value is None else "ok"
        self.method.tell(dict(params), value, n=runs, status=status, memory_gb=peak_memory(record))
        if not record.number:
            baseline = fmean(record.values) if record.values else None
            for past, value in self._memory.points_for(baseline, self.goal, self._form_of):
                self.method.tell(dict(past.params or {}), value, status=past.status)
                self._from_elsewhere += 1

    def _form_of(self, params: Params) -> str:
        """The form of the baseline's program with ``params``; "" for a point outside the space."""
        return "" if self.space.valid(params) else program_of(self.space.render(self._source, params))

    def rebase(self, proposal: Proposal, source: str, path: str) -> str:
        """``source`` with all values of the point: a point sets the whole block."""
        if proposal.params is None:
            raise PatchRejected("the proposal holds no point")
        text = self.space.render(source, proposal.params)
        if text == source:
            raise NoEffect(UNCHANGED)
        return text

    def replay(self, events: Iterable[Event]) -> None:
        builder = StateBuilder()
        for event in events:
            builder.apply(event)
            if isinstance(event, Asked):
                made = event.proposal
                found = None if made.params is None else Suggestion(made.params, made.source, search=made.search)
                self.method.replay(found)
            elif isinstance(event, Observed):  # the record of that time: without later runs of the same commit
                self.tell(builder.records[event.trial - 1] if event.trial else builder.state().baseline_record)


def minimised_value(record: Record, goal: Goal) -> float | None:
    """The mean over the runs of a trial, or its prediction if it was stopped; negated for ``maximize``; else None."""
    predicted = [run.prediction.value for run in record.runs if run.status == "stopped" and run.prediction]
    values = predicted or record.values
    if record.failed or not values:
        return None
    return minimised(fmean(values), goal)


def peak_memory(record: Record) -> float | None:
    """The largest peak memory of the runs in GB: of the GPU, or of the host for a run without one."""
    peaks = [run.metrics.get("peak_vram_gb", run.peak_memory_gb) for run in record.runs]
    return max((peak for peak in peaks if peak), default=None)


def subject(before: Params, after: Params) -> str:
    """``MATRIX_LR 0.04 → 0.05, DEPTH 8 → 9, and 3 more``: the largest relative changes first."""

    def size(name: str) -> float:
        old, new = before.get(name), after[name]
        if isinstance(old, (int, float)) and isinstance(new, (int, float)):
            return abs(new - old) / max(abs(old), abs(new), 1e-12)
        return 0.5

    names = sorted((name for name in after if before.get(name) != after[name]), key=size, reverse=True)
    shown = ", ".join(f"{n} {show(before.get(n))} → {show(after[n])}" for n in names[:2])
    return (shown or "No change") + (f", and {len(names) - 2} more" if len(names) > 2 else "")
