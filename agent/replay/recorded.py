"""What a replay or promotion has found so far, from its ledger alone: for ``watch``, ``serve`` and ``report``."""

from __future__ import annotations

from dataclasses import dataclass

from agent.ledger.recovery import read_state
from agent.ledger.state import State
from agent.replay import outcomes, promotion
from agent.replay.promote_view import promote_shown
from agent.replay.shown import Shown
from agent.replay.view import replay_shown
from agent.review.data.runs import condition
from agent.rundir.directory import RunDirectory


@dataclass(frozen=True)
class Recorded:
    """A replay or promotion as its ledger describes it."""

    tag: str  # name of its directory
    kind: str  # replay or promote
    what: str  # what is trained again
    condition: str  # running, ended or interrupted
    started: float | None  # seconds since the epoch
    done: int  # runs
    left: int  # runs that may follow
    under_way: tuple[tuple[str, float], ...] = ()  # what each run trains, and when the run started
    shown: Shown | None = None  # None before there is a plan
    damage: tuple[str, ...] = ()  # a text for each line of the ledger that cannot be read


def read_recorded(directory: RunDirectory) -> Recorded:
    state, damage = read_state(directory.ledger)
    running = directory.running()
    kind, what = (word if isinstance(word, str) else "" for word in (state.session.kind, state.session.what))
    left, names, shown = _found(state, kind)
    under_way = [(names.get(run.commit, run.commit[:9]), run.time) for run in state.started] if running else []
    return Recorded(
        tag=directory.tag,
        kind=kind,
        what=what,
        condition=condition(state, running),
        started=state.began,
        done=sum(map(len, state.runs.values())),
        left=left,
        under_way=tuple(under_way),
        shown=shown,
        damage=tuple(damage),
    )


def _found(state: State, kind: str) -> tuple[int, dict[str, str], Shown | None]:
    """Runs that are left, the names of the commits, and the tables."""
    found: tuple[outcomes.Result | promotion.Result, Shown]
    if kind == "promote" and (promoted := promotion.result_in(state)):
        found = promoted, promote_shown(promoted)
    elif kind == "replay" and (replayed := outcomes.result_in(state)):
        found = replayed, replay_shown(replayed)
    else:
        return 0, {}, None
    return found[0].left, {job.step.commit: job.step.subject for job in found[0].plan.all_jobs}, found[1]
