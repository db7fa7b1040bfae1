"""The commits of a branch with their recorded values: the baseline, then every commit that changes the edited file.

Recorded values come from the ledger of a run, from the trailers of commits (``agent.repo.messages``), or from a
published results.tsv.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from agent.errors import UsageError
from agent.judge.gain import difference
from agent.ledger.state import State
from agent.repo.messages import trailer_name
from agent.repo.repo import Commit, Repo
from agent.rundir.results import number_or_none
from agent.target import Target
from agent.types import Measurement, on_validation, values_of

MAIN = ("main", "master", "origin/main", "origin/master")
WHOLE, TOGETHER = -1, -2  # numbers of the whole branch, and of the edits that hold, together


@dataclass(frozen=True)
class Step:
    """One commit and its recorded values, which are None where nothing is recorded."""

    number: int  # 0 is the baseline
    commit: str
    subject: str
    trial: int | None = None
    recorded: float | None = None  # value
    gain: float | None = None  # over the step before; positive is better
    gain_se: float | None = None  # standard error of ``gain``
    runs: tuple[Measurement, ...] = ()  # recorded runs on the validation split

    @property
    def bare(self) -> Step:
        """Without its recorded runs."""
        return replace(self, runs=())


def steps_of_run(state: State) -> tuple[Step, ...]:
    """The baseline and the kept edits of a session.

    Raises:
        UsageError: the session has not measured its baseline.
    """
    runs = on_validation(state.baseline_runs)
    values = values_of(runs)
    if not values:
        raise UsageError("the session has not measured its baseline yet; there is nothing to replay.")
    steps = [Step(0, state.baseline, "baseline", 0, fmean(values), runs=runs)]
    for record in state.kept:
        if record.accepted is None or record.candidate is None or record.verdict is None:
            continue  # the session was killed before the branch moved; the next resume moves it
        steps.append(
            Step(
                number=len(steps),
                commit=record.accepted,
                subject=record.proposal.subject,
                trial=record.number,
                recorded=record.verdict.value,
                gain=record.verdict.gain,
                gain_se=record.verdict.gain_se,
                runs=on_validation(state.runs.get(record.candidate, ())),
            )
        )
    return tuple(steps)


def named(steps: Sequence[Step], repo: Repo, tag: str) -> tuple[Step, ...]:
    """The steps of run ``tag`` with the subjects of their commits.

    Raises:
        UsageError: the repository lacks one of them.
    """
    repo.need((step.commit for step in steps), tag)
    return tuple(replace(step, subject=repo.commit(step.commit).subject) for step in steps)


def steps_of_branch(repo: Repo, target: Target, revisions: str, published: Mapping[str, float]) -> tuple[Step, ...]:
    """The base of a branch or range, and each of its commits that changes the edited file.

    Args:
        revisions: ``A..B`` starts after A; a branch starts where its session did, or where it left the main branch.
        published: values by short commit hash, from a results.tsv.

    Raises:
        UsageError: there is no such revision, the base is missing, or no commit changes the file.
    """
    path = target.path
    base, tip = _ends(repo, path, revisions)
    found = [commit for commit in repo.history(f"{base}..{tip}") if _changes(repo, commit, path)]
    if not found:
        raise UsageError(f"{revisions}: no commit changes {path}; there is nothing to replay.")
    recorded = published.get(base[:7], number_or_none(trailers(found[0]).get("Best-Before")))
    steps = [Step(0, base, "baseline", recorded=recorded)]
    for commit in found:
        fields = trailers(commit)
        value = number_or_none(fields.get(trailer_name(target.metric)))
        value = published.get(commit.sha[:7]) if value is None else value
        gain, before = number_or_none(fields.get("Gain")), steps[-1].recorded
        if gain is None and value is not None and before is not None:
            gain = difference(before, value, target.goal)
        trial = fields.get("Trial", "")
        steps.append(
            Step(
                number=len(steps),
                commit=commit.sha,
                subject=commit.subject,
                trial=int(trial) if trial.isdigit() else None,
                recorded=value,
                gain=gain,
                gain_se=number_or_none(fields.get("Gain-Se")),
            )
        )
    return tuple(steps)


def trailers(commit: Commit) -> dict[str, str]:
    """The trailers of a commit message: ``Name: value`` lines of its last paragraph."""
    last = commit.body.strip().split("\n\n")[-1]
    return dict(re.findall(r"^([A-Za-z][A-Za-z0-9-]*): (.*)$", last, re.M))


def _ends(repo: Repo, path: str, revisions: str) -> tuple[str, str]:
    start, dots, end = revisions.partition("..")
    tip = repo.resolve((end or "HEAD") if dots else revisions)
    if tip is None:
        raise UsageError(f"{end if dots else revisions!r} is no commit of {repo.top}.")
    if dots:
        base = repo.resolve(start)
        if base is None:
            raise UsageError(f"{start!r} is no commit of {repo.top}. Fetch it, or name another start: A..B.")
        return base, tip
    found = repo.history(tip)
    sessions = [trailers(commit).get("Session") for commit in found]
    last = next((name for name in reversed(sessions) if name), None)
    if last and (own := sessions.index(last)):
        return found[own - 1].sha, tip
    fork = next((f for name in MAIN if (f := repo.git.attempt("merge-base", name, tip)) and f != tip), None)
    if fork:
        return fork, tip
    first = next((commit.sha for commit in found if repo.has(commit.sha, path)), None)
    if first is None:
        raise UsageError(f"{revisions}: none of its commits has a file {path}. Is --target the right folder?")
    return first, tip


def _changes(repo: Repo, commit: Commit, path: str) -> bool:
    """Whether a commit changes the file against its first parent."""
    if not commit.parents or not repo.has(commit.sha, path):
        return False
    return not repo.has(commit.parents[0], path) or repo.read(commit.sha, path) != repo.read(commit.parents[0], path)
