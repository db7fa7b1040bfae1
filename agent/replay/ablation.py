"""Commits for an ablation: the branch without one kept edit, and the branch without the edits that do not hold."""

from __future__ import annotations

import ast
from collections.abc import Sequence, Set
from itertools import pairwise

from agent.patch.merge3 import merge
from agent.replay.plan import OBSTACLE, Comparison
from agent.replay.steps import Step
from agent.repo.repo import Repo

BUILT = 1000  # commits that were built for a replay have numbers from here on: this and the number of the edit, ...
MINIMAL = 2000  # ... or, without all edits that do not hold, this


def cut(repo: Repo, kept: Sequence[Step], step: Step, path: str) -> Comparison:
    """Compare the head of the branch without an edit with the head; ``kept`` begins with the baseline."""
    head = kept[-1]
    before, after, now = (repo.read(c.commit, path) for c in (kept[step.number - 1], step, head))
    text = merge(base=after, ours=now, theirs=before)
    if text is None or text == now or not _parses(text, path):
        return Comparison(step, head, head, OBSTACLE)
    commit = next((earlier.commit for earlier in kept if repo.read(earlier.commit, path) == text), None)
    if commit is None:
        message = f"Leave out: {step.subject}\n\nFor an ablation: the branch without commit {step.commit[:12]}.\n"
        commit = repo.build(head.commit, {path: text}, message, repo.commit(head.commit).when)
    return Comparison(step, Step(BUILT + step.number, commit, f"without: {step.subject}"), head)


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
