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
from agent.types import IdeaUse, Record

SOURCE = "ideas"
PRIOR = 2.0  # pseudo-outcomes of each kind per category: a first failure lowers a category a little
TEXT_LIMIT = 900  # characters of one idea in a prompt
SIMILAR = 0.85  # least similarity of a name that a model wrote
SHORTEST = 8  # letters of a name that is looked for in a subject


def subject(idea: Idea) -> str:
    """The subject of a proposal that tries the idea's recipe."""
    return one_line(idea.name, SUBJECT_LIMIT)


def tried(records: Iterable[Record], bank: Sequence[Idea]) -> set[str]:
    """Keys of the ideas that a trial took up. In ledgers of earlier versions the subject says so."""
    subjects = {subject(idea).lower(): idea.key for idea in bank}
    proposals = [record.proposal for record in records]
    found = {subjects[p.subject.lower()] for p in proposals if p.ideas is None and p.subject.lower() in subjects}
    return found | {proposal.ideas.taken for proposal in proposals if proposal.ideas and proposal.ideas.taken}


def untried(bank: Sequence[Idea], context: Context) -> tuple[Idea, ...]:
    """The ideas that no trial of this session took up."""
    done = tried((*context.history, *context.open), bank)
    return tuple(idea for idea in bank if idea.key not in done)


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
        draws = {category: category_draw(category, context) for category in sorted({idea.category for idea in left})}
        draw = random.Random(f"{context.seed}/{context.trial}/material")
        keys = {}
        for idea in left:
            weight = idea.expected * draws[idea.category] / 2 ** min(shown[idea.key], 20)
            keys[idea.key] = draw.random() ** (1 / max(weight, 1e-6))
        chosen = sorted(left, key=lambda idea: -keys[idea.key])[:count]
        return {idea.key: f"- {idea.name} ({idea.category}): {one_line(idea.text, TEXT_LIMIT)}" for idea in chosen}

    def use_of(self, header: Header, shown: Collection[str], context: Context) -> IdeaUse:
        """The line ``Idea:`` names an idea of the bank; without it, the subject may hold the name of a shown idea."""
        if header.idea:
            taken = _named(header.idea, self.bank)
        else:
            taken = _in_subject(header.subject, [idea for idea in self.bank if idea.key in shown])
        return IdeaUse(taken, tuple(shown), len(untried(self.bank, context)))


def category_draw(category: str, context: Context) -> float:
    """A Thompson draw from the outcomes of the trials that took up ideas of a category; 1/2 without outcomes.

    Source: Thompson 1933, doi:10.1093/biomet/25.3-4.285.
    """
    outcomes = [
        record.decision == "keep"
        for record in context.history
        if (record.proposal.source == SOURCE or (record.proposal.ideas and record.proposal.ideas.taken))
        and record.proposal.category == category
        and not record.proposal.ending
    ]
    if not outcomes:
        return 0.5
    keeps = sum(outcomes)
    draw = random.Random(f"{context.seed}/{context.trial}/{category}")
    return draw.betavariate(PRIOR + keeps, PRIOR + len(outcomes) - keeps)


def _named(text: str, bank: Sequence[Idea]) -> str:
    names = {_plain(name): idea.key for idea in bank for name in (idea.name, idea.key)}
    close = difflib.get_close_matches(_plain(text), names, n=1, cutoff=SIMILAR)
    return names[close[0]] if close else ""


def _in_subject(text: str, shown: Sequence[Idea]) -> str:
    plain = f" {_plain(text)} "
    found = [idea for idea in shown if len(_plain(idea.name)) >= SHORTEST and f" {_plain(idea.name)} " in plain]
    return max(found, key=lambda idea: len(idea.name)).key if found else ""


def _plain(text: str) -> str:
    return " ".join(re.findall(r"[^\W_]+", text.lower()))
