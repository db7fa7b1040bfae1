"""Which ideas of the bank were tried, which to try next, and which one an edit takes up."""

from __future__ import annotations

import difflib
import random
import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from agent.llm.prompts import one_line
from agent.proposers.code.header import SUBJECT_LIMIT, Header
from agent.proposers.ideas.bank import Idea
from agent.proposers.protocol import Context
from agent.types import IdeaUse

SOURCE = "ideas"
PRIOR = 2.0  # pseudo-outcomes of each kind per category: a first failure lowers a category a little
TEXT_LIMIT = 900  # characters of one idea in a prompt
SIMILAR = 0.85  # least similarity of a name that a model wrote
SHORTEST = 8  # letters of a name that is looked for in a subject


def subject(idea: Idea) -> str:
    """The subject of a proposal that tries the idea's recipe."""
    return one_line(idea.name, SUBJECT_LIMIT)


def untried(bank: Sequence[Idea], context: Context) -> tuple[Idea, ...]:
    """The ideas that no trial of this session took up. In ledgers of earlier versions the subject says so."""
    proposals = [record.proposal for record in (*context.history, *context.open)]
    taken = {proposal.ideas.taken for proposal in proposals if proposal.ideas is not None}
    subjects = {proposal.subject.lower() for proposal in proposals if proposal.ideas is None}
    return tuple(idea for idea in bank if idea.key not in taken and subject(idea).lower() not in subjects)


@dataclass(frozen=True)
class BankMaterial:
    """A ``Material`` of ``agent.proposers.code.prompt``: ideas of the bank for the prompt of a model."""

    bank: tuple[Idea, ...]

    def show(self, context: Context, count: int) -> dict[str, str]:
        """Untried ideas, drawn without replacement in proportion to their weights.

        The weight is ``expected`` times the draw of the category, halved each time that the idea was shown.

        Source: Efraimidis, Spirakis 2006, doi:10.1016/j.ipl.2005.11.003 (weighted sampling by keys u^(1/weight)).
        """
        left = untried(self.bank, context)
        shown = Counter(key for r in context.history if r.proposal.ideas for key in r.proposal.ideas.shown)
        draws = category_draws(left, context)
        draw = random.Random(f"{context.seed}/{context.trial}/material")
        keys = {}
        for idea in left:
            weight = idea.expected * draws[idea.category] / 2 ** min(shown[idea.key], 20)
            keys[idea.key] = draw.random() ** (1 / max(weight, 1e-6))
        chosen = sorted(left, key=lambda idea: -keys[idea.key])[:count]
        return {idea.key: f"- {idea.name} ({idea.category}): {one_line(idea.text, TEXT_LIMIT)}" for idea in chosen}

    def use_of(self, header: Header, shown: Collection[str], context: Context) -> IdeaUse:
        """The line ``Idea:`` names an idea of the bank; without it, the subject may hold the name of a shown idea."""
        taken = ""
        if header.idea:
            names = {_plain(name): idea.key for idea in self.bank for name in (idea.name, idea.key)}
            for close in difflib.get_close_matches(_plain(header.idea), names, n=1, cutoff=SIMILAR):
                taken = names[close]
        else:
            words = f" {_plain(header.subject)} "
            names = {_plain(idea.name): idea.key for idea in self.bank if idea.key in shown}
            found = [name for name in names if len(name) >= SHORTEST and f" {name} " in words]
            taken = names[max(found, key=len)] if found else ""
        return IdeaUse(taken, tuple(shown), len(untried(self.bank, context)))


def category_draws(ideas: Iterable[Idea], context: Context) -> dict[str, float]:
    """For each category, a Thompson draw from the outcomes of the trials that took up its ideas; 1/2 without outcomes.

    Source: Thompson 1933, doi:10.1093/biomet/25.3-4.285.
    """
    outcomes: dict[str, list[bool]] = {idea.category: [] for idea in ideas}
    for record in context.history:
        proposal = record.proposal
        took_up = proposal.source == SOURCE or (proposal.ideas and proposal.ideas.taken)
        if took_up and not proposal.ending and proposal.category in outcomes:
            outcomes[proposal.category].append(record.decision == "keep")
    draws = {}
    for category, found in outcomes.items():
        draw, keeps = random.Random(f"{context.seed}/{context.trial}/{category}"), sum(found)
        draws[category] = draw.betavariate(PRIOR + keeps, PRIOR + len(found) - keeps) if found else 0.5
    return draws


def _plain(text: str) -> str:
    return " ".join(re.findall(r"[^\W_]+", text.lower()))
