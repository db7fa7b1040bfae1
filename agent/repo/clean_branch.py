"""A clean branch of a session's kept edits, for a pull request: the user's name, messages for a reviewer."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from types import MappingProxyType

from agent.errors import UsageError
from agent.ledger.state import State
from agent.patch.merge3 import merge
from agent.repo.messages import subject_line, wrapped
from agent.repo.repo import Repo
from agent.text import duration
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
        pick: numbers of kept trials, applied in the order of the session; default all of them.
        onto: revision to start from; default the baseline of the session.
        when: date of the commits in seconds since the epoch; default now.
        notes: a sentence for the message of some trials.

    Raises:
        UsageError: no kept edit, a number of no kept trial, a branch name that exists or is invalid, missing commits,
            no git identity, or an edit that conflicts with the text before it.
    """
    path = state.session.path
    edits = _picked(state, pick)
    name = name or f"autoresearch/{tag}-clean"
    if repo.git.attempt("check-ref-format", "--branch", name) != name:  # git expands @{-1}
        raise UsageError(f"--name {name!r}: git does not accept this branch name (git help check-ref-format).")
    if repo.resolve(name):
        raise UsageError(f"{name} exists. Choose another --name.")
    base = repo.resolve(onto) if onto else state.baseline
    if base is None:
        raise UsageError(f"--onto {onto}: no commit of {repo.top}.")
    repo.need((base, *(sha for record in edits for sha in (record.parent, record.candidate) if sha)), tag)
    author = _identity(repo)
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
    repo.refs.move(f"refs/heads/{name}", head, None)
    return Cleaned(name, base, head, 1 if squash else len(edits), len(edits))


def _picked(state: State, pick: Sequence[int]) -> list[Record]:
    kept = {record.number: record for record in state.kept if record.candidate}
    if not kept:
        raise UsageError("the session kept no edit, so there is no branch to make.")
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
    gains = [_gain(r.verdict.gain, r.verdict.gain_se) if r.verdict else "unknown" for r in edits]
    lines = "\n".join(
        f"- {subject_line(r)} ({gain}). {notes.get(r.number, '')}".rstrip(". ")
        for r, gain in zip(edits, gains, strict=True)
    )
    summary = f"Each was measured against the one before it. Gains in {state.session.metric}:"
    parts = [f"Apply {len(edits)} edits kept by session {tag}", summary, lines, *wrapped(_total(edits, state))]
    return "\n\n".join(parts) + "\n"


def _total(edits: Sequence[Record], state: State) -> str:
    """The sum of the gains, from the value before the first edit."""
    verdicts = [record.verdict for record in edits if record.verdict and record.verdict.gain is not None]
    if not verdicts or verdicts[0].best_before is None:
        return ""
    errors = [verdict.gain_se for verdict in verdicts if verdict.gain_se]
    gain = math.fsum(verdict.gain or 0.0 for verdict in verdicts)
    start = verdicts[0].best_before
    end = start + gain if state.session.goal == "maximize" else start - gain
    se = math.hypot(*errors) if len(errors) == len(verdicts) else None
    return f"In total {_change(state, start, end, _gain(gain, se))}."


def _change(state: State, before: float, after: float, gain: str) -> str:
    """``val_bpb 2.8251 → 2.7844: a gain of 0.0407 ± 0.0100``."""
    reported = ", as the code itself reports it" if state.session.self_reported else ""
    return f"{state.session.metric} {before:.4f} → {after:.4f}{reported}: a gain of {gain}"


def _result(record: Record, state: State, tag: str) -> str:
    verdict = record.verdict
    if verdict is None or verdict.value is None or verdict.best_before is None:
        return f"Trial {record.number} of session {tag}."
    trained = [seconds for run in record.runs if (seconds := run.seconds.get("training"))]
    took = f" of about {duration(median(trained))} of training" if trained else ""
    runs = f"{'one run' if verdict.n == 1 else f'{verdict.n} runs'}{took}"
    change = _change(state, verdict.best_before, verdict.value, _gain(verdict.gain, verdict.gain_se))
    return f"{change}, from {runs} (trial {record.number} of session {tag})."


def _gain(gain: float | None, se: float | None) -> str:
    if gain is None:
        return "unknown"
    return f"{gain:.4f}" + (f" ± {se:.4f}" if se else "")


def _identity(repo: Repo) -> tuple[str, str]:
    """Name and email of the user. Raises ``UsageError`` if git's configuration lacks them."""
    name, mail = (repo.git.attempt("config", "--get", f"user.{part}") for part in ("name", "email"))
    if not name or not mail:
        raise UsageError(
            'git has no user.name or user.email. Run: git config --global user.name "Your Name" && '
            "git config --global user.email you@example.org"
        )
    return name, mail
