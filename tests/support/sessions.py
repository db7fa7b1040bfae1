"""Sessions over the bowl of targets.py, in this process or in a child that kills itself."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from whole import check_whole, refs_of

from agent.ledger import journal as ledger
from agent.ledger.events import Asked, name_of
from agent.ledger.state import State, fold
from agent.observers.protocol import Observer
from agent.repo.refs import Refs
from agent.repo.repo import Repo
from agent.rundir.directory import RunDirectory
from agent.session import setup as launch
from agent.session.parts import block_proposer
from agent.settings import make_settings
from agent.target import load_target

__all__ = ["USUAL", "check_replay", "check_whole", "killed", "nothing", "refs_of", "resume", "start", "state_of"]

USUAL = {
    "proposer": "cma-es",
    "sandbox": "process",
    "device": "cpu",
    "policy": "margin",
    "calibrate": 3,
    "trials": 4,
    "memory": "off",
}


def nothing(_text: str) -> None:
    """Discard a message."""


def start(target: Path, runs: Path, tag: str = "night", **settings: Any) -> RunDirectory:
    given = {**USUAL, "target": str(target), "runs": str(runs), "tag": tag, **settings}
    return launch.start(make_settings(given, None), Observer(), nothing)


def resume(runs: Path, tag: str = "night", **changes: Any) -> RunDirectory:
    return launch.resume(runs, tag, changes, Observer(), nothing)


def state_of(directory: RunDirectory) -> State:
    return fold(ledger.read(directory.ledger))


def killed(work: Callable[[], object], kill: Callable[[str, str], bool]) -> bool:
    """Do ``work`` in a child that kills itself with SIGKILL as soon as ``kill(when, what)`` is true.

    Args:
        work: runs in a forked child.
        kill: called with "before" or "after", and the name of the event that is written, or ``move`` for a ref.

    Returns:
        Whether the child was killed. Any other exit status than 0 fails the test.
    """

    def child() -> None:
        _dying(ledger.Ledger, "append", kill, lambda _self, event: name_of(event))
        _dying(Refs, "move", kill, lambda *_arguments: "move")
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


def check_replay(directory: RunDirectory, target: Path, settings: Mapping[str, Any]) -> None:
    """Assert that a new search method, after replaying the ledger up to an ask, asks for the same point."""
    events = ledger.read(directory.ledger)
    baseline = fold(events).baseline
    given = make_settings({**USUAL, "target": str(target), **settings}, None)
    loaded, _ = load_target(target)
    source = Repo(target).read(baseline, loaded.path)
    for position, event in enumerate(events):
        if isinstance(event, Asked):
            proposer = block_proposer(given, loaded, source, None)
            proposer.replay(events[:position])
            assert dict(proposer.method.suggest().params) == event.proposal.params
