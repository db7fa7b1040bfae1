"""A clean branch of a run's kept edits, for a pull request: the user's name, messages for a reviewer."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from agent.errors import UsageError
from agent.ledger.state import State
from agent.patch.merge3 import merge
from agent.repo.messages import subject_line, wrapped
from agent.repo.repo import Repo
from agent.types import Record


@dataclass(frozen=True)
class Cleaned:
    """The new branch."""

    name: str
    base: str
    commit: str
    commits: int
    edits: int


def make_branch(
    state: State,
    repo: Repo,
    tag: str,
    *,
    name: str = "",
    squash: bool = False,
    pick: Sequence[int] = (),
    onto: str = "",
    when: float | None = None,
    notes: Mapping[int, str] = MappingProxyType({}),
) -> Cleaned:
    """Build the commits and the branch without a checkout.

    Args:
        name: default ``autoresearch/TAG-clean``.
        pick: numbers of kept trials, applied in the order of the run; default all of them.
        onto: revision to start from; default the baseline of the run.
        when: date of the commits in seconds since the epoch; default now.
        notes: a sentence for the message of some trials.

    Raises:
        UsageError: no kept edit, a number of no kept trial, a branch name that exists or is invalid, missing commits,
            no git identity, or an edit that conflicts with the text before it.
    """
    path = state.session.path
    edits = _picked(state, pick)
    name = name or f"autoresearch/{tag}-clean"
    if not repo.is_branch_name(name):
        raise UsageError(f"--name {name!r}: git does not accept this branch name (git help check-ref-format).")
    if repo.resolve(name):
        raise UsageError(f"{name} exists. Choose another --name.")
    base = repo.resolve(onto) if onto else state.baseline
    if base is None:
        raise UsageError(f"--onto {onto}: no commit of {repo.top}.")
    repo.need((base, *(sha for record in edits for sha in (record.parent, record.candidate) if sha)), tag)
    author = repo.identity()
    date = int(time.time() if when is None else when)
    head, text = base, repo.read(base, path)
    for record in edits:
        assert record.candidate is not None
        before = repo.read(record.parent, path)
        merged = merge(before, ours=text, theirs=repo.read(record.candidate, path))
        if merged is None:
            raise UsageError(
                f"trial {record.number} ({subject_line(record)}) conflicts with the text before it. "
                f"Leave it out with --pick, or also pick the edits that it builds on."
            )
        text = merged
        if not squash:
            head = repo.build(head, {path: text}, _message(record, state, tag, notes), date, author=author)
    if squash:
        head = repo.build(base, {path: text}, _squashed(edits, state, tag, notes), date, author=author)
    repo.move(f"refs/heads/{name}", head, None)
    return Cleaned(name, base, head, 1 if squash else len(edits), len(edits))


def _picked(state: State, pick: Sequence[int]) -> list[Record]:
    kept = {record.number: record for record in state.kept if record.candidate}
    if not kept:
        raise UsageError("the run kept no edit, so there is no branch to make.")
    unknown = [number for number in pick if number not in kept]
    if unknown:
        raise UsageError(f"--pick {unknown[0]}: this trial was not kept. Kept: {', '.join(map(str, kept))}.")
    return [record for number, record in kept.items() if not pick or number in pick]


def _message(record: Record, state: State, tag: str, notes: Mapping[int, str]) -> str:
    result = f"{_result(record, state, tag)} {notes.get(record.number, '')}"
    parts = [subject_line(record), *wrapped(record.proposal.rationale), *wrapped(result)]
    return "\n\n".join(parts) + "\n"


def _squashed(edits: Sequence[Record], state: State, tag: str, notes: Mapping[int, str]) -> str:
    if len(edits) == 1:
        return _message(edits[0], state, tag, notes)
    lines = "\n".join(f"- {subject_line(r)} ({_gain(r)}). {notes.get(r.number, '')}".rstrip(". ") for r in edits)
    summary = f"Kept by run {tag}, each measured against the one before it:"
    return f"Apply {len(edits)} edits that beat the measured noise\n\n{summary}\n\n{lines}\n"


def _result(record: Record, state: State, tag: str) -> str:
    verdict, session = record.verdict, state.session
    if verdict is None or verdict.value is None or verdict.best_before is None:
        return f"Trial {record.number} of run {tag}."
    reported = ", as the code itself reports it" if session.self_reported else ""
    runs = f"{verdict.n} run{'s' if verdict.n != 1 else ''} of {session.budget or 'one budget'} each"
    return (
        f"{session.metric} {verdict.best_before:.4f} → {verdict.value:.4f}{reported}: "
        f"a gain of {_gain(record)}, in {runs} (trial {record.number} of run {tag})."
    )


def _gain(record: Record) -> str:
    verdict = record.verdict
    if verdict is None or verdict.gain is None:
        return "unknown"
    return f"{verdict.gain:.4f}" + (f" ± {verdict.gain_se:.4f}" if verdict.gain_se else "")
