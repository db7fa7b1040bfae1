"""Commits for an ablation: the branch without one kept edit, and the branch without the edits that do not hold."""

from __future__ import annotations

import ast
from collections.abc import Sequence, Set
from itertools import pairwise

from agent.patch.merge3 import merge
from agent.replay.outcomes import Finding
from agent.replay.plan import Cut
from agent.replay.steps import Step
from agent.repo.repo import Repo

NUMBERS = 1000  # added to the number of a step for the commit without it
MINIMAL = 2000


def cuts_of(repo: Repo, kept: Sequence[Step], path: str) -> tuple[Cut, ...]:
    """For each kept edit the head of the branch without it; ``kept`` begins with the baseline."""
    return tuple(_cut(repo, kept, step, path) for step in kept[1:])


def _cut(repo: Repo, kept: Sequence[Step], step: Step, path: str) -> Cut:
    head = kept[-1].commit
    before, after, now = (repo.read(c, path) for c in (kept[step.number - 1].commit, step.commit, head))
    text = merge(base=after, ours=now, theirs=before)
    if text is None or text == now or not _parses(text, path):
        return Cut(step, None)
    commit = next((earlier.commit for earlier in kept if repo.read(earlier.commit, path) == text), None)
    if commit is None:
        message = f"Leave out: {step.subject}\n\nFor an ablation: the branch without commit {step.commit[:12]}.\n"
        commit = repo.build(head, {path: text}, message, repo.commit(head).when)
    return Cut(step, Step(NUMBERS + step.number, commit, f"without: {step.subject}"))


def minimal_step(repo: Repo, kept: Sequence[Step], ablations: Sequence[Finding], path: str) -> Step | None:
    """The branch rebuilt from its baseline without the edits that do not hold.

    Returns:
        None if edits are still to be measured, if all or none would be left out, or if the rest does not merge.
    """
    out = {found.step.number for found in ablations if found.outcome == "does not hold"}
    if not out or len(ablations) < len(kept) - 1 or len(out) == len(kept) - 1:
        return None
    head = without(repo, kept, out, path)
    return Step(MINIMAL, head, "without the edits that do not hold") if head else None


def without(repo: Repo, kept: Sequence[Step], out: Set[int], path: str) -> str | None:
    """The branch rebuilt from its baseline without the steps ``out``; None if the rest does not merge."""
    head, text = kept[0].commit, repo.read(kept[0].commit, path)
    for before, step in pairwise(kept):
        if step.number in out:
            continue
        merged = merge(base=repo.read(before.commit, path), ours=text, theirs=repo.read(step.commit, path))
        if merged is None or not _parses(merged, path):
            return None
        commit = repo.commit(step.commit)
        message = f"{commit.subject}\n\n{commit.body}\n" if commit.body else f"{commit.subject}\n"
        head, text = repo.build(head, {path: merged}, message, commit.when), merged
    return head


def _parses(text: str, path: str) -> bool:
    try:
        return not path.endswith(".py") or bool(ast.parse(text))
    except (SyntaxError, ValueError):
        return False
