"""Adapts any search method over the hyperparameter block to a proposer of unified diffs.

Whatever draws the point, it reaches the trainer the way a model's edit does: rendered into the block, turned into a
diff, and put through the one patch path.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from statistics import fmean
from typing import TYPE_CHECKING

from agent.errors import NoEffect, PatchRejected, ReplyRejected
from agent.ledger.events import Asked, Event, Told
from agent.ledger.state import StateBuilder
from agent.llm.api_keys import scrub
from agent.llm.prompts import cut_notes, one_line
from agent.patch.apply import unified_diff
from agent.proposers.protocol import Context, NoPoint, SuggestingMethod, Suggestion
from agent.proposers.search.base import Method, Terms
from agent.space.space import SearchSpace
from agent.types import Goal, Proposal, Record, Value

if TYPE_CHECKING:
    pass


class BlockProposer:
    """``ask`` edits the block of the present best file; ``tell`` reports the mean over a trial's runs, once."""

    def __init__(self, name: str, method: SuggestingMethod, space: SearchSpace, goal: Goal):
        self.name, self.method, self.space, self.goal = name, method, space, goal

    def ask(self, context: Context) -> Proposal:
        before = self.space.read(context.source)
        if isinstance(self.method, Method):
            self.method.terms = Terms(one_line(context.metric) or "loss", self.goal, cut_notes(context.notes))
        try:
            suggestion = self.method.suggest()
        except ReplyRejected as error:
            return self._without_point(error, context)
        self._keep(suggestion.transcript, context)
        text = self.space.render(context.source, suggestion.params)
        diff = unified_diff(context.source, text, context.path)
        changed = {k: v for k, v in suggestion.params.items() if before.get(k) != v}
        return Proposal(
            proposer=self.name,
            source=suggestion.source,
            parent=context.parent,
            diff=diff,
            params=dict(suggestion.params),
            subject=subject(before, changed),
            rationale=suggestion.rationale,
            category="hyperparameters",
            model=suggestion.model,
            transcript=_place(context) if suggestion.transcript else "",
            usage=dict(suggestion.usage),
            search=dict(suggestion.search),
            ending=None if diff else "no_effect",
            reason="" if diff else "the same values as the present best",
        )

    def _without_point(self, error: ReplyRejected, context: Context) -> Proposal:
        """A model answered and gave no point: the record says so, and nobody else's point takes its place."""
        talk = error if isinstance(error, NoPoint) else NoPoint(str(error))
        self._keep(talk.transcript, context)
        return Proposal(
            proposer=self.name,
            source="llm",
            parent=context.parent,
            diff="",
            subject="No usable configuration",
            category="hyperparameters",
            model=talk.model,
            transcript=_place(context) if talk.transcript else "",
            usage=talk.usage,
            ending="model_failed",
            reason=str(error),
        )

    @staticmethod
    def _keep(transcript: str, context: Context) -> None:
        if transcript and context.transcripts is not None:
            context.transcripts.mkdir(parents=True, exist_ok=True)
            file = context.transcripts / "conversation.md"
            file.write_text(scrub(transcript), encoding="utf-8", errors="replace")

    def rebase(self, proposal: Proposal, source: str, path: str) -> str:
        """A point says every value of the block, whatever else has changed."""
        if proposal.params is None:
            raise PatchRejected("the proposal holds no point")
        text = self.space.render(source, proposal.params)
        if text == source:
            raise NoEffect("the same values as the present best")
        return text

    def tell(self, record: Record) -> None:
        params = record.proposal.params if record.number else self.space.defaults
        if params is None:
            return
        self.method.tell(
            dict(params),
            told_value(record, self.goal),
            n=max(len(record.values), 1),
            status=record.status,
            memory_gb=max((r.peak_memory_gb or 0.0 for r in record.runs), default=0.0) or None,
        )

    def replay(self, events: Iterable[Event]) -> None:
        """Bring the method to where the ledger's asks and tells left it."""
        builder = StateBuilder()
        for event in events:
            builder.apply(event)
            if isinstance(event, Asked):
                proposal, params = event.proposal, event.proposal.params
                self.method.replay(
                    None if params is None else Suggestion(dict(params), proposal.source, proposal.rationale)
                )
            elif isinstance(event, Told):  # the record as it was then, without later runs of the same commit
                record = builder.records[event.trial - 1] if event.trial else builder.state().baseline_record
                self.tell(record)


def _place(context: Context) -> str:
    """The directory of the transcripts, relative to the run directory."""
    directory, run = context.transcripts, context.run_directory
    if directory is None:
        return ""
    return directory.relative_to(run).as_posix() if run and directory.is_relative_to(run) else directory.name


def told_value(record: Record, goal: Goal) -> float | None:
    """The mean of a trial's runs, as search methods want it: smaller is better; None for a failure."""
    if record.status != "ok" or not record.values:
        return None
    return fmean(record.values) if goal == "minimize" else -fmean(record.values)


def subject(before: Mapping[str, Value], changed: Mapping[str, Value]) -> str:
    """``MATRIX_LR 0.04 → 0.05, DEPTH 8 → 9, and 3 more``: the largest relative changes first."""
    if not changed:
        return "No change"

    def size(name: str) -> float:
        old, new = before.get(name), changed[name]
        if isinstance(old, (int, float)) and isinstance(new, (int, float)):
            return abs(new - old) / max(abs(old), abs(new), 1e-12)
        return 0.5

    names = sorted(changed, key=size, reverse=True)
    shown = ", ".join(f"{n} {_short(before.get(n))} → {_short(changed[n])}" for n in names[:2])
    return shown + (f", and {len(names) - 2} more" if len(names) > 2 else "")


def _short(value: Value | None) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
