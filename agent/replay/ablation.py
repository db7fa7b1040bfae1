"""Each kept edit left out in turn: does the branch need it? And the branch cut to those edits that hold."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from agent.judge.noise import Noise, t_quantile
from agent.patch.merge3 import merge
from agent.replay.outcomes import LEVEL, gain_between, gain_se
from agent.replay.steps import Step
from agent.repo.repo import Commit, Repo
from agent.types import Goal, Measurement

Need = Literal["holds", "does not hold", "cannot tell", "cannot be left out"]
NUMBERS = 1000  # ablations are numbered from here on, after the steps themselves
MINIMAL = 2000


@dataclass(frozen=True)
class Ablation:
    """One kept edit, and what the branch loses without it (positive: it gets worse)."""

    step: Step  # the kept edit
    need: Need
    reason: str
    commit: str | None = None  # the head of the branch without the edit
    value: float | None = None
    loss: float | None = None
    se: float | None = None


@dataclass(frozen=True)
class Minimal:
    """The branch without the edits that do not hold, against the whole branch."""

    branch: str
    commit: str
    left_out: tuple[Step, ...]
    gain: float | None  # over the whole branch; positive is better
    se: float | None
    worse: bool  # the cut branch is worse beyond the noise: it is not made
    reason: str


def steps(repo: Repo, kept: Sequence[Step], path: str) -> Iterator[Step]:
    """For each edit that can be taken out cleanly, the head without it, as a step to measure."""
    for step in kept[1:]:
        commit = without(repo, kept, step, path)
        if commit is not None:
            yield Step(NUMBERS + step.number, commit, f"without: {step.subject}")


def without(repo: Repo, kept: Sequence[Step], step: Step, path: str) -> str | None:
    """The head of the branch with one edit reversed; None where that does not merge cleanly or does not parse."""
    head = kept[-1].commit
    before, after, now = (repo.read(c, path) for c in (kept[step.number - 1].commit, step.commit, head))
    text = merge(base=after, ours=now, theirs=before)
    if text is None or text == now or not _parses(text, path):
        return None
    same = next((earlier.commit for earlier in kept if repo.read(earlier.commit, path) == text), None)
    if same:
        return same  # without the last edit, the branch is what it was before it
    message = f"Leave out: {step.subject}\n\nFor an ablation: the branch without commit {step.commit[:12]}.\n"
    return repo.build(head, {path: text}, message, repo.commit(head).when)


def judge(
    repo: Repo,
    kept: Sequence[Step],
    path: str,
    runs: Mapping[str, Sequence[Measurement]],
    goal: Goal,
    noise: Noise,
) -> tuple[Ablation, ...]:
    """What has been measured of each edit's need; edits that are still to be measured are left out."""
    whole = _values(runs, kept[-1].commit)
    found: list[Ablation] = []
    for step in kept[1:]:
        commit = without(repo, kept, step, path)
        if commit is None:
            found.append(Ablation(step, "cannot be left out", "later edits build on it, or nothing is left of it"))
            continue
        if commit not in runs:
            continue
        values = _values(runs, commit)
        if not values:
            failed = runs[commit][-1]
            found.append(Ablation(step, "holds", f"without it: {failed.status}: {failed.reason}", commit))
            continue
        loss, se = gain_between(values, whole, goal), gain_se(noise, len(whole), len(values))
        need, reason = _need(loss, se, noise.dof)
        found.append(Ablation(step, need, reason, commit, sum(values) / len(values), loss, se))
    return tuple(found)


def _need(loss: float | None, se: float | None, dof: int) -> tuple[Need, str]:
    if loss is None:
        return "cannot tell", "the whole branch has no value"
    if loss <= 0:
        return "does not hold", "the branch is no worse without it"
    if se is None:
        return "cannot tell", "nothing says how much runs scatter: use --seeds 3"
    if loss > (t_quantile(LEVEL, dof) * se if se and dof else 0.0):
        return "holds", "the branch is worse without it"
    return "cannot tell", "within the noise of so few runs"


def minimal_step(repo: Repo, kept: Sequence[Step], ablations: Sequence[Ablation], path: str) -> Step | None:
    """The branch rebuilt from its baseline without the edits that do not hold, as a step to measure.

    None where nothing is to be left out, where nothing would be left, or where the rest does not merge.
    """
    out = {a.step.number for a in ablations if a.need == "does not hold"}
    if not out or len(ablations) < len(kept) - 1 or len(out) == len(kept) - 1:
        return None
    head, text = kept[0].commit, repo.read(kept[0].commit, path)
    for before, step in pairwise(kept):
        if step.number in out:
            continue
        base, theirs = repo.read(before.commit, path), repo.read(step.commit, path)
        merged = merge(base=base, ours=text, theirs=theirs)
        if merged is None or not _parses(merged, path):
            return None
        commit = repo.commit(step.commit)
        head, text = repo.build(head, {path: merged}, _message(commit), commit.when), merged
    return Step(MINIMAL, head, "without the edits that do not hold")


def judge_minimal(
    step: Step,
    branch: str,
    head: Step,
    ablations: Sequence[Ablation],
    runs: Mapping[str, Sequence[Measurement]],
    goal: Goal,
    noise: Noise,
) -> Minimal:
    """Whether the cut branch is as good as the whole one."""
    out = tuple(a.step for a in ablations if a.need == "does not hold")
    values, whole = _values(runs, step.commit), _values(runs, head.commit)
    gain, se = gain_between(whole, values, goal), gain_se(noise, len(values), len(whole))
    reach = t_quantile(LEVEL, noise.dof) * se if se and noise.dof else 0.0
    worse = gain is None or gain + reach < 0
    reason = "it is worse than the whole branch: together the edits matter" if worse else "no worse than the whole"
    if gain is None:
        reason = "it fails"
    return Minimal(branch, step.commit, out, gain, se, worse, reason)


def _message(commit: Commit) -> str:
    return f"{commit.subject}\n\n{commit.body}\n" if commit.body else f"{commit.subject}\n"


def _parses(text: str, path: str) -> bool:
    if not path.endswith(".py"):
        return True
    try:
        ast.parse(text)
    except (SyntaxError, ValueError):
        return False
    return True


def _values(runs: Mapping[str, Sequence[Measurement]], commit: str) -> list[float]:
    return [run.value for run in runs.get(commit, ()) if run.value is not None]
