"""What a replay runs: the baseline of a branch, then every commit that changes the edited file, with what is recorded.

Three sources: a run with its ledger; a branch whose commits carry the trailers of ``agent.repo.messages``; and any
other
branch, such as a published autoresearch history, whose values may stand in a results.tsv beside it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from agent.errors import UsageError
from agent.ledger.state import State
from agent.repo.messages import trailer_name
from agent.repo.repo import Commit, Repo
from agent.rundir.results import number_or_none
from agent.types import Measurement

MAIN = ("main", "master", "origin/main", "origin/master")


@dataclass(frozen=True)
class Step:
    """One commit to run again. Step 0 is the baseline. ``recorded`` is None where nothing says what it reached."""

    number: int
    commit: str
    subject: str
    trial: int | None = None
    recorded: float | None = None
    gain: float | None = None  # as recorded; positive is better
    gain_se: float | None = None
    runs: tuple[Measurement, ...] = ()  # the recorded runs on the validation split


def steps_of_run(state: State) -> tuple[Step, ...]:
    """The baseline and the kept edits of a run.

    Raises:
        UsageError: the run has not measured its baseline.
    """
    runs = _scored(state.baseline_runs)
    if not any(run.value is not None for run in runs):
        raise UsageError("the run has not measured its baseline yet; there is nothing to replay.")
    steps = [Step(0, state.baseline, "baseline", 0, _mean(runs), runs=runs)]
    for record in state.kept:
        if record.accepted is None or record.candidate is None or record.verdict is None:
            continue  # kept, and died before the branch moved: the next resume finishes it
        steps.append(
            Step(
                number=len(steps),
                commit=record.accepted,
                subject=record.proposal.subject,
                trial=record.number,
                recorded=record.verdict.value,
                gain=record.verdict.gain,
                gain_se=record.verdict.gain_se,
                runs=_scored(state.runs.get(record.candidate, ())),
            )
        )
    return tuple(steps)


def named(steps: Sequence[Step], repo: Repo, tag: str) -> tuple[Step, ...]:
    """The steps of run ``tag`` with the subjects that their commits have.

    Raises:
        UsageError: the repository lacks one of them.
    """
    repo.need((step.commit for step in steps), tag)
    return tuple(replace(step, subject=repo.commit(step.commit).subject) for step in steps)


def steps_of_branch(
    repo: Repo, path: str, revisions: str, metric: str, sign: float, published: Mapping[str, float] | None = None
) -> tuple[Step, ...]:
    """The base of a branch or range, and each of its commits that changes ``path``.

    Args:
        revisions: ``A..B`` starts after A; a branch starts where it left the main branch, or where its session did.
        sign: 1 where lower is better, -1 where higher is.
        published: values by short commit hash, from a results.tsv.

    Raises:
        UsageError: no such revision, the base is gone, or no commit changes the file.
    """
    base, tip = _ends(repo, path, revisions)
    found = [commit for commit in repo.history(f"{base}..{tip}") if _changes(repo, commit, path)]
    if not found:
        raise UsageError(f"{revisions}: no commit changes {path}; there is nothing to replay.")
    steps = [Step(0, base, "baseline", recorded=_published(published, base) or _before(found[0]))]
    for commit in found:
        told = trailers(commit)
        value = number_or_none(told.get(trailer_name(metric))) or _published(published, commit.sha)
        gain, before = number_or_none(told.get("Gain")), steps[-1].recorded
        if gain is None and value is not None and before is not None:
            gain = sign * (before - value)
        trial = told.get("Trial", "")
        steps.append(
            Step(
                number=len(steps),
                commit=commit.sha,
                subject=commit.subject,
                trial=int(trial) if trial.isdigit() else None,
                recorded=value,
                gain=gain,
                gain_se=number_or_none(told.get("Gain-Se")),
            )
        )
    return tuple(steps)


def trailers(commit: Commit) -> dict[str, str]:
    """The trailers of a commit message: ``Name: value`` lines of its last paragraph."""
    last = commit.body.strip().split("\n\n")[-1]
    return dict(re.findall(r"^([A-Za-z][A-Za-z0-9-]*): (.*)$", last, re.M))


def _ends(repo: Repo, path: str, revisions: str) -> tuple[str, str]:
    start, dots, end = revisions.partition("..")
    tip = repo.resolve(end or "HEAD") if dots else repo.resolve(revisions)
    if tip is None:
        raise UsageError(f"{end if dots else revisions!r} is no commit of {repo.top}.")
    if dots:
        base = repo.resolve(start)
        if base is None:
            raise UsageError(f"{start!r} is no commit of {repo.top}: was the base fetched? Name another start: A..B.")
        return base, tip
    history = repo.history(tip)
    sessions = [trailers(commit).get("Session") for commit in history]
    last = next((name for name in reversed(sessions) if name), None)
    if last and (own := sessions.index(last)):
        return history[own - 1].sha, tip
    fork = next((f for name in MAIN if (f := repo.merge_base(name, tip)) and f != tip), None)
    if fork:
        return fork, tip
    first = next((commit.sha for commit in history if repo.has(commit.sha, path)), None)
    if first is None:
        raise UsageError(f"{revisions}: none of its commits has a file {path}. Is --target the right folder?")
    return first, tip


def _changes(repo: Repo, commit: Commit, path: str) -> bool:
    """Whether a commit changes the file against its first parent."""
    if not commit.parents or not repo.has(commit.sha, path):
        return False
    return not repo.has(commit.parents[0], path) or repo.read(commit.sha, path) != repo.read(commit.parents[0], path)


def _before(first: Commit) -> float | None:
    return number_or_none(trailers(first).get("Best-Before"))


def _scored(runs: Sequence[Measurement]) -> tuple[Measurement, ...]:
    return tuple(run for run in runs if run.role != "test")


def _mean(runs: Sequence[Measurement]) -> float | None:
    values = [run.value for run in runs if run.value is not None]
    return fmean(values) if values else None


def _published(values: Mapping[str, float] | None, sha: str) -> float | None:
    return values.get(sha[:7]) if values else None
