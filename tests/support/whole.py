"""Invariants of a run that ended, however often it was interrupted. benchmarks/kills.py uses them as well."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agent.ledger.events import Asked, Event, Observed, fields_of, name_of
from agent.ledger.journal import read
from agent.ledger.state import State, fold
from agent.repo.repo import Repo
from agent.repo.run_refs import REFS
from agent.rundir.directory import RunDirectory

# Fields that differ between two sessions with the same trials: times, and what depends on them. The date of an
# attempt's commit is the time of its request; the seeds of its runs depend on its hash; lost runs use up numbers.
VOLATILE = frozenset({"time", "started", "waited", "seconds", "peak_memory_gb", "seed", "trace", "attempt"})
INTERRUPTIONS = frozenset({"run_started", "lost", "resumed", "ended"})  # more often in an interrupted session


def refs_of(target: Path, tag: str = "night") -> dict[str, str]:
    """Short names and commits of all refs of a run, and of the branches."""
    words = ["git", "-C", str(target), "for-each-ref", "--format=%(refname) %(objectname)", f"{REFS}/{tag}/"]
    text = subprocess.run([*words, "refs/heads/"], capture_output=True, text=True, check=True).stdout
    return {name.removeprefix(f"{REFS}/{tag}/"): sha for name, sha in map(str.split, text.splitlines())}


def check_whole(directory: RunDirectory, target: Path, trials: int) -> None:
    """Assert that ledger, refs, branch and results.tsv agree, and that nothing is lost or doubled."""
    events = read(directory.ledger)
    state = fold(events)
    asked = [e.trial for e in events if isinstance(e, Asked)]
    assert asked == list(range(1, trials + 1)), asked
    observed = [e.trial for e in events if isinstance(e, Observed)]
    assert sorted(observed) == [0, *asked], observed
    assert not state.started, "a run is neither measured nor lost"
    names = [(m.commit, m.seed) for runs in state.runs.values() for m in runs if m.role != "test"]
    assert len(set(names)) == len(names), "a commit was measured twice under one seed"
    wanted = {"head": state.head, f"refs/heads/autoresearch/{directory.tag}": state.head}
    suffix = [f".r{r.revision}" if r.revision else "" for r in state.records]
    wanted |= {f"{r.number:04d}{suffix[r.number - 1]}": r.candidate for r in state.records if r.candidate}
    found = refs_of(target, directory.tag)
    assert {name: found.get(name) for name in wanted} == wanted, found
    repo = Repo(target)
    commits = repo.history(f"{state.baseline}..{state.head}")
    assert [c.sha for c in commits] == [r.accepted for r in state.kept], "the branch is not what was kept"
    for commit, record in zip(commits, state.kept, strict=True):
        assert record.candidate is not None
        assert commit.tree == repo.commit(record.candidate).tree
        assert commit.parents == (record.base,), "the branch holds a combination of edits that was not measured"
        assert any(run.value is not None for run in state.runs[record.candidate])
    lines = directory.results.read_text().splitlines()
    assert len(lines) == 2 + trials, len(lines)
    in_order = [state.records[trial - 1] for trial in observed if trial]
    assert [line.split("\t")[3] for line in lines[2:]] == [_published(r.status, r.decision) for r in in_order]


def _published(status: str, decision: str) -> str:
    return "crash" if status != "ok" else "keep" if decision == "keep" else "discard"


def essence(events: Sequence[Event]) -> list[Any]:
    """The events without ``VOLATILE`` fields; commits have names instead of hashes."""
    names = _names(fold(events))
    return [_bare(fields_of(event), names) for event in events if name_of(event) not in INTERRUPTIONS]


def _names(state: State) -> dict[str, str]:
    names = {state.baseline: "baseline"}
    for record in state.records:
        names |= {str(record.candidate): f"attempt {record.number}", str(record.accepted): f"accepted {record.number}"}
    return names


def _bare(value: Any, names: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _bare(item, names) for key, item in value.items() if key not in VOLATILE}
    if isinstance(value, list):
        return [_bare(item, names) for item in value]
    return names.get(value, value) if isinstance(value, str) else value
