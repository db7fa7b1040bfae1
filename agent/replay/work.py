"""A replay or promotion at work in its directory: lock, ledger, requests to stop, and the engine on its workers."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

from agent.errors import Interrupted, UsageError
from agent.ledger.events import Ended, Lost, Planned, Resumed, SessionStarted
from agent.ledger.journal import Ledger
from agent.replay.engine import Engine, View
from agent.replay.plan import Runs
from agent.replay.steps import Step
from agent.repo.repo import Repo
from agent.rundir.directory import RunDirectory
from agent.rundir.stop import Stopper
from agent.types import to_json
from agent.workers.runtime import Workplace, find_workers

IDENTITY = ("kind", "what", "baseline", "commits", "budget", "data", "exact")  # cannot change when the work continues


class Work:
    """What a plan needs while it runs."""

    def __init__(self, directory: RunDirectory, ledger: Ledger, view: View, stopper: Stopper, max_hours: float | None):
        self._directory, self._ledger, self._view, self._stopper = directory, ledger, view, stopper
        self._end = time.monotonic() + 3600 * max_hours if max_hours else None

    @property
    def runs(self) -> Runs:
        return self._ledger.state.runs

    def plan(self, plan: Any) -> None:
        """Record the plan, so that watchers need nothing but the ledger."""
        if (data := to_json(plan)) != self._ledger.state.plan:
            self._ledger.append(Planned(plan=data))

    def keep(self, repo: Repo, steps: Sequence[Step]) -> None:
        """Name the commits of steps, so that git keeps them."""
        for step in steps:
            name = f"refs/autoresearch/{self._directory.tag}/{step.number:04d}"
            repo.move(name, step.commit, repo.ref(name))

    @contextlib.contextmanager
    def engine(self, place: Workplace) -> Iterator[Engine]:
        owner = str(self._directory.path.resolve())
        with contextlib.closing(find_workers(place, owner, self._stopper.now)) as workers:
            yield Engine(self._directory, self._ledger, workers, self._view, self._stop)

    def _stop(self) -> bool:
        return bool(self._stopper.asked()) or (self._end is not None and time.monotonic() > self._end)


@contextlib.contextmanager
def working(
    directory: RunDirectory, first: SessionStarted, view: AbstractContextManager[View], max_hours: float | None = None
) -> Iterator[Work]:
    """Open the directory and its ledger. A request to stop ends the block early, without an error.

    Args:
        first: the first event of the ledger.
        max_hours: no run starts after this time.

    Raises:
        UsageError: the directory holds other work.
    """
    directory.path.mkdir(parents=True, exist_ok=True)
    (directory.path / ".gitignore").write_text("*\n")
    with directory.lock(), Ledger(directory.ledger) as ledger:
        _begin(ledger, first, directory)
        directory.forget_stop()
        stopper = Stopper(directory)
        with stopper.listening(), view as shown, contextlib.suppress(Interrupted):
            yield Work(directory, ledger, shown, stopper, max_hours)
            ledger.append(Ended(reason="all runs done"))


def first_event(
    directory: RunDirectory, place: Workplace, kind: str, what: str, commits: Sequence[str], exact: bool = False
) -> SessionStarted:
    """What a replay or a promotion works on; ``commits`` begin with the baseline."""
    return SessionStarted(
        kind=kind,
        tag=directory.tag,
        metric=place.target.metric,
        goal=place.target.goal,
        sandbox=place.sandbox.name,
        device=place.device.uuid or place.device.kind,
        self_reported=place.target.score == "stdout",
        what=what,
        baseline=commits[0],
        commits=tuple(commits),
        budget=str(place.target.budget),
        data=place.data_hash,
        exact=exact,
    )


def _begin(ledger: Ledger, event: SessionStarted, directory: RunDirectory) -> None:
    """Write the first event, or check that the ledger belongs to the same work; runs of a dead process are lost."""
    if not ledger.events:
        ledger.append(event)
        return
    state = ledger.state
    if different := [name for name in IDENTITY if getattr(state.session, name) != getattr(event, name)]:
        found = f"{directory.path} holds a {state.session.kind} with other {' and '.join(different)}"
        raise UsageError(f"{found}. Name a new one: --name NAME.")
    ledger.append(Resumed(attempt=state.resumed + 1))
    for started in state.started:
        ledger.append(Lost(trial=0, trace=started.trace, reason=f"the {event.kind} was killed"))
