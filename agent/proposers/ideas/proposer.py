"""Proposes the recipes of the idea bank, without a model.

The state follows from the Context alone, and ask k draws from (session seed, k). So the same ledger gives the same next
ask.
"""

from __future__ import annotations

from collections.abc import Sequence

from agent.errors import SearchExhausted
from agent.llm.chat import Reply
from agent.llm.prompts import one_line
from agent.patch.apply import unified_diff
from agent.proposers.code.header import RATIONALE_LIMIT
from agent.proposers.code.proposer import Unusable, read_edit
from agent.proposers.ideas.bank import Idea
from agent.proposers.ideas.choice import SOURCE, category_draws, subject, untried
from agent.proposers.protocol import Context, Proposer
from agent.types import IdeaUse, Proposal


class IdeasProposer(Proposer):
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
        draws = category_draws(left, context)
        scores = {idea.key: idea.expected * draws[idea.category] for idea in left}
        ranked = sorted(left, key=lambda idea: (-scores[idea.key], idea.key))
        skipped: dict[str, str] = {}
        for best in ranked:  # placing a recipe takes a moment: stop at the first that applies
            try:
                text, form = read_edit(Reply(best.reply), context)
                break
            except Unusable as problem:
                skipped[best.key] = one_line(problem.reason, 200)
        else:
            names = ", ".join(list(skipped)[:5]) + (", …" if len(skipped) > 5 else "")  # `overnight ideas` lists all
            rest = f" {len(skipped)} do not apply to the present file: {names}." if skipped else ""
            tried = len(self.recipes) - len(left)
            raise SearchExhausted(
                f"all recipes of the idea bank are used up: {tried} are tried.{rest} Add ideas to the folder ideas/ "
                "beside target.toml to go on; see `overnight ideas`."
            )
        lines = [f"- {idea.key}: score {scores[idea.key]:.3f}" for idea in ranked]
        lines += [f"- {key}: skipped: {reason}" for key, reason in skipped.items()]
        context.write("ideas.md", "\n".join(lines) + "\n")
        return Proposal(
            proposer=self.name,
            source=SOURCE,
            parent=context.parent,
            diff=unified_diff(context.source, text, context.path),
            subject=subject(best),
            rationale=one_line(f"{best.text} Source: {best.source}", RATIONALE_LIMIT),
            category=best.category,
            form=form,
            text=text,
            transcript=context.transcript,
            ideas=IdeaUse(best.key, left=len(left)),
            search={"left": len(ranked) - len(skipped), "skipped": len(skipped), "score": round(scores[best.key], 6)},
        )
