"""Two attempts of a run side by side: their values, and the diff between their files."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from agent.errors import UsageError
from agent.ledger import State
from agent.repo import Repo
from agent.types import Measurement
from agent.views import text
from agent.views.diff import diff_view
from agent.views.summary import difference, estimate, summarize


def side(state: State, word: str) -> tuple[str, str, Sequence[Measurement]]:
    """Name, commit and runs of one side: the number of a trial, 0 or ``baseline``, ``head``.

    Raises:
        UsageError: there is no such trial, or it never became code.
    """
    if word in ("0", "baseline"):
        return "baseline", state.baseline, state.baseline_runs
    if word == "head":
        return "head", state.head, state.runs.get(state.incumbent, ())
    number = int(word) if word.isdigit() else -1
    record = state.of_trial(number)
    if record is None:
        trials = f"1 to {len(state.records)}, " if state.records else ""
        raise UsageError(f"{word!r} is no trial of this run: it has {trials}baseline and head.")
    if record.candidate is None:
        raise UsageError(f"trial {number} never became code ({record.status}): `overnight show` has what was proposed.")
    return f"trial {number}", record.candidate, record.runs


def compare_view(state: State, repo: Repo, a: str, b: str) -> RenderableType:
    """Both values, which is better and by how much, and what differs in the edited file."""
    path = str(state.session.get("path", "train.py"))
    (name_a, commit_a, runs_a), (name_b, commit_b, runs_b) = side(state, a), side(state, b)
    repo.need((commit_a, commit_b), str(state.session.get("tag", "")))
    summary = summarize(state)
    one, other = estimate(runs_a), estimate(runs_b)
    words = [
        f"{name}: {summary.metric} {text.number(found.value if found else None, summary.self_reported)} "
        f"({text.count(found.n if found else 0, 'run')})"
        for name, found in ((name_a, one), (name_b, other))
    ]
    if one and other and commit_a != commit_b:  # against itself nothing has gained or lost
        sd = summary.noise_sd
        se = sd * math.sqrt(1 / one.n + 1 / other.n) if sd is not None else None
        gain = difference(one.value, other.value, summary.goal)
        words.append(f"{name_b} against {name_a}: {text.gain(gain, se)} (positive is better)")
    before, after = repo.read(commit_a, path), repo.read(commit_b, path)
    return Group(*(Text(text.line(line)) for line in words), Text(), diff_view(before, after, (name_a, name_b)))
