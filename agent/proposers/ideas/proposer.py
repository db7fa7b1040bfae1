"""Proposes the recipes of the idea bank, without a model.

The state follows from the Context alone, and ask k draws from (session seed, k). So the same ledger gives the same next
ask.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from agent.errors import SearchExhausted
from agent.ledger.events import Event
from agent.llm.chat import Reply
from agent.llm.prompts import one_line
from agent.patch.apply import apply_reply, unified_diff
from agent.proposers.code.header import RATIONALE_LIMIT, SUBJECT_LIMIT
from agent.proposers.code.proposer import Unusable, read_edit
from agent.proposers.ideas.bank import Idea
from agent.proposers.protocol import Context
from agent.types import Proposal, Record

SOURCE = "ideas"
PRIOR = 2.0  # pseudo-outcomes of each kind per category: a first failure lowers a category a little


class Ranked(NamedTuple):
    """An idea that was not tried, with its score in this ask."""

    score: float
    idea: Idea


def _order(ranked: Ranked) -> tuple[float, str]:
    return -ranked.score, ranked.idea.key


class IdeasProposer:
    """Proposes the recipes that apply to the present file, the best expected first.

    The score of an idea is its ``expected`` times a Thompson draw of its category: Beta(PRIOR + keeps, PRIOR +
    reverts), or 1/2 for a category without outcomes.

    Args:
        bank: the ideas; those without a recipe are ignored.

    Source: Thompson 1933, doi:10.1093/biomet/25.3-4.285.
    """

    name = "ideas"

    def __init__(self, bank: Sequence[Idea]) -> None:
        self.recipes = tuple(idea for idea in bank if idea.recipe)

    def ask(self, context: Context) -> Proposal:
        records = (*context.history, *context.open)
        tried = {r.proposal.subject for r in records if r.proposal.source == SOURCE}
        left = [idea for idea in self.recipes if subject(idea) not in tried]
        draws = {category: category_draw(category, context) for category in sorted({i.category for i in left})}
        ranked = sorted((Ranked(idea.expected * draws[idea.category], idea) for idea in left), key=_order)
        skipped: dict[str, str] = {}
        for best in ranked:  # placing a recipe takes a moment: stop at the first that applies
            try:
                text, form = read_edit(Reply(best.idea.reply), context)
                break
            except Unusable as problem:
                skipped[best.idea.key] = one_line(problem.reason, 200)
        else:
            raise _exhausted(len(self.recipes) - len(left), skipped)
        return Proposal(
            proposer=self.name,
            source=SOURCE,
            parent=context.parent,
            diff=unified_diff(context.source, text, context.path),
            subject=subject(best.idea),
            rationale=one_line(f"{best.idea.text} Source: {best.idea.source}", RATIONALE_LIMIT),
            category=best.idea.category,
            form=form,
            text=text,
            transcript=_keep(ranked, skipped, context),
            search={"left": len(ranked) - len(skipped), "skipped": len(skipped), "score": round(best.score, 6)},
        )

    def tell(self, record: Record) -> None:
        """Nothing to do: the next Context holds every record."""

    def rebase(self, proposal: Proposal, source: str, path: str) -> str:
        return apply_reply(source, proposal.diff, path)

    def replay(self, events: Iterable[Event]) -> None:
        """Nothing to restore: see ``tell``."""


def subject(idea: Idea) -> str:
    """The subject of the proposal; it marks the idea as tried."""
    return one_line(idea.name, SUBJECT_LIMIT)


def untried_ideas(bank: Sequence[Idea], context: Context, count: int) -> str:
    """Ideas for a model's next edit, as a list: drawn without replacement, in proportion to their scores.

    An idea counts as tried if an attempt has its name as the subject.
    """
    tried = {record.proposal.subject.lower() for record in (*context.history, *context.open)}
    left = [idea for idea in bank if subject(idea).lower() not in tried]
    draws = {category: category_draw(category, context) for category in sorted({idea.category for idea in left})}
    draw = random.Random(f"{context.seed}/{context.trial}/material")
    # the largest keys u^(1/weight) are a weighted sample: Efraimidis, Spirakis 2006, doi:10.1016/j.ipl.2005.11.003
    keys = {idea.key: draw.random() ** (1 / max(idea.expected * draws[idea.category], 1e-3)) for idea in left}
    chosen = sorted(left, key=lambda idea: -keys[idea.key])[:count]
    return "\n".join(f"- {idea.name} ({idea.category}): {one_line(idea.text, 900)}" for idea in chosen)


def category_draw(category: str, context: Context) -> float:
    """A Thompson draw from the outcomes of the trials of a category; 1/2 without outcomes."""
    outcomes = [
        record.decision == "keep"
        for record in context.history
        if record.proposal.source == SOURCE and record.proposal.category == category and not record.proposal.ending
    ]
    if not outcomes:
        return 0.5
    keeps = sum(outcomes)
    draw = random.Random(f"{context.seed}/{context.trial}/{category}")
    return draw.betavariate(PRIOR + keeps, PRIOR + len(outcomes) - keeps)


def _exhausted(tried: int, skipped: dict[str, str]) -> SearchExhausted:
    rest = f" {len(skipped)} do not apply to the present file: {', '.join(skipped)}." if skipped else ""
    return SearchExhausted(
        f"all recipes of the idea bank are used up: {tried} are tried.{rest} Add ideas to the folder ideas/ beside "
        "target.toml to go on; see `overnight ideas`."
    )


def _keep(ranked: Sequence[Ranked], skipped: dict[str, str], context: Context) -> str:
    """Write the order of this ask and the skipped recipes; the directory relative to the run directory."""
    directory, run = context.transcripts, context.run_directory
    if directory is None:
        return ""
    lines = [f"- {each.idea.key}: score {each.score:.3f}" for each in ranked]
    lines += [f"- {key}: skipped: {reason}" for key, reason in skipped.items()]
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "ideas.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return directory.relative_to(run).as_posix() if run and directory.is_relative_to(run) else directory.name
