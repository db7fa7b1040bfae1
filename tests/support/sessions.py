"""Sessions over the bowl of targets.py, run in this process or in one that dies where it is told to."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from targets import git

from agent import launch, ledger
from agent.config import make_settings
from agent.proposers.block import BlockProposer
from agent.repo import REFS, Repo
from agent.rundir import RunDirectory
from agent.views.live import SilentView

USUAL = {"proposer": "cma-es", "sandbox": "process", "device": "cpu", "policy": "margin", "calibrate": 3, "trials": 4}


def nothing(_text: str) -> None:
    """What a session says to nobody."""


def start(target: Path, runs: Path, tag: str = "night", **settings: Any) -> RunDirectory:
    given = {**USUAL, "target": str(target), "runs": str(runs), "tag": tag, **settings}
    return launch.start(make_settings(given, None), SilentView(), nothing)


def resume(runs: Path, tag: str = "night", **changes: Any) -> RunDirectory:
    return launch.resume(runs, tag, changes, SilentView(), nothing)


def state_of(directory: RunDirectory) -> ledger.State:
    return ledger.fold(ledger.read(directory.ledger))


def refs_of(target: Path, tag: str = "night") -> dict[str, str]:
    """Short names and commits of all refs of a run."""
    text = git(target, "for-each-ref", "--format=%(refname) %(objectname)", f"{REFS}/{tag}/", "refs/heads/")
    return {name.removeprefix(f"{REFS}/{tag}/"): sha for name, sha in map(str.split, text.splitlines())}


def killed(work: Callable[[], object], kill: Callable[[str, str], bool]) -> bool:
    """Do ``work`` in a child that kills itself with SIGKILL as soon as ``kill(when, what)`` says so.

    ``when`` is before or after; ``what`` is the event that is written, or ``move`` of a ref.

    Returns: whether it came to that. A child that ends in any other way than well fails the test.
    """

    def child() -> None:
        _dying(ledger.Ledger, "append", kill, lambda _self, event, **_fields: str(event))
        _dying(Repo, "move", kill, lambda *_arguments: "move")
        work()

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join()
    assert process.exitcode in (0, -signal.SIGKILL)
    return process.exitcode != 0


def _dying(owner: type, name: str, kill: Callable[[str, str], bool], what: Callable[..., str]) -> None:
    real = getattr(owner, name)

    def dying(*arguments: Any, **named: Any) -> Any:
        called = what(*arguments, **named)
        if kill("before", called):
            os.kill(os.getpid(), signal.SIGKILL)
        result = real(*arguments, **named)
        if kill("after", called):
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, dying)


def check_whole(directory: RunDirectory, target: Path, trials: int) -> None:
    """Everything that must be true of a run that ended, however often it was interrupted."""
    events = ledger.read(directory.ledger)
    state = ledger.fold(events)
    repo = Repo(target)
    asked = [e["trial"] for e in events if e["event"] == "asked"]
    assert asked == list(range(1, trials + 1))
    told = [e["trial"] for e in events if e["event"] == "told"]
    assert sorted(told) == [0, *asked]
    assert not state.started, "a run is neither measured nor lost"
    names = [(m.commit, m.seed) for runs in state.runs.values() for m in runs if m.role != "test"]
    assert len(set(names)) == len(names), "a commit was measured twice under one seed"
    wanted = {"head": state.head, f"refs/heads/autoresearch/{directory.tag}": state.head}
    suffix = [f".r{r.revision}" if r.revision else "" for r in state.records]
    wanted |= {f"{r.number:04d}{suffix[r.number - 1]}": r.candidate for r in state.records if r.candidate}
    found = refs_of(target, directory.tag)
    assert {name: found.get(name) for name in wanted} == wanted
    history = repo.history(f"{state.baseline}..{state.head}")
    assert [c.sha for c in history] == [r.accepted for r in state.kept]
    for commit, record in zip(history, state.kept, strict=True):
        assert record.candidate is not None
        assert commit.tree == repo.commit(record.candidate).tree
        assert commit.parents == (record.base,), "the branch holds a combination that nobody ran"
        assert any(run.value is not None for run in state.runs[record.candidate])
    lines = directory.results.read_text().splitlines()
    assert len(lines) == 2 + trials
    in_order = [state.records[trial - 1] for trial in told if trial]
    assert [line.split("\t")[3] for line in lines[2:]] == [_published(r.status, r.decision) for r in in_order]


def _published(status: str, decision: str) -> str:
    return "crash" if status != "ok" else "keep" if decision == "keep" else "discard"


def check_replay(directory: RunDirectory, target: Path, settings: Mapping[str, Any]) -> None:
    """Each recorded ask is what a fresh search method, brought to where the ledger then was, asks for."""
    events = ledger.read(directory.ledger)
    baseline = ledger.fold(events).baseline
    given = make_settings({**USUAL, "target": str(target), **settings}, None)
    loaded, _ = launch.load_target(target)
    source = Repo(target).read(baseline, loaded.path)
    for position, event in enumerate(events):
        if event["event"] == "asked":
            proposer = BlockProposer.from_settings(given, loaded, source, None)
            proposer.replay(events[:position])
            assert dict(proposer.method.suggest().params) == event["proposal"]["params"]
