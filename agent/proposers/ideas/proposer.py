"""Proposes the recipes of the idea bank, without a model.

The state follows from the Context alone, and ask k draws from (session seed, k). So the same ledger gives the same next
ask.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from agent.errors import SearchExhausted
from agent.ledger.events import Event
from agent.llm.chat import Reply
from agent.llm.prompts import one_line
from agent.patch.apply import apply_reply, unified_diff
from agent.proposers.code.header import RATIONALE_LIMIT
from agent.proposers.code.proposer import Unusable, read_edit
from agent.proposers.ideas.bank import Idea
from agent.proposers.ideas.choice import SOURCE, category_draw, subject, untried
from agent.proposers.protocol import Context
from agent.types import IdeaUse, Proposal, Record


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
    """

    name = "ideas"

    def __init__(self, bank: Sequence[Idea]) -> None:
        self.recipes = tuple(idea for idea in bank if idea.recipe)

    def ask(self, context: Context) -> Proposal:
        left = untried(self.recipes, context)
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
            ideas=IdeaUse(best.idea.key, left=len(left)),
            search={"left": len(ranked) - len(skipped), "skipped": len(skipped), "score": round(best.score, 6)},
        )

    def tell(self, record: Record) -> None:
        """Nothing to do: the next Context holds every record."""

    def rebase(self, proposal: Proposal, source: str, path: str) -> str:
        return apply_reply(source, proposal.diff, path)

    def replay(self, events: Iterable[Event]) -> None:
        """Nothing to restore: see ``tell``."""


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
