"""What a replay or promotion has found so far, from its ledger alone: for ``watch``, ``serve`` and ``report``."""

from __future__ import annotations

import time
from dataclasses import dataclass
from itertools import chain

from rich.console import RenderableType
from rich.text import Text

from agent import text
from agent.ledger.recovery import read_state
from agent.replay.outcomes import result_in
from agent.replay.plan import runs_left, sides_of
from agent.replay.shown import Shown, terminal
from agent.replay.view import shown_of
from agent.review.data.runs import condition
from agent.review.terminal.runs import condition_text
from agent.review.terminal.table import bar, framed
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
    left: int = 0  # runs that may follow
    in_progress: tuple[str, ...] = ()  # for each run in progress: what it trains, and how long so far
    shown: Shown | None = None  # None before there is a plan
    damage: tuple[str, ...] = ()  # a text for each line of the ledger that cannot be read

    @property
    def progress(self) -> str:
        return f"{self.done} of at most {text.count(self.done + self.left, 'run')}"

    @property
    def share(self) -> float:
        """Of the runs, 0 to 1."""
        return self.done / max(1, self.done + self.left)


def read_recorded(directory: RunDirectory) -> Recorded:
    state, damage = read_state(directory.ledger)
    running, result = directory.running(), result_in(state)
    kind, what = (word if isinstance(word, str) else "" for word in (state.session.kind, state.session.what))
    stages = result.plan.stages if result else ()
    names = {step.commit: step.subject for stage in stages for step in sides_of(stage.comparisons)}
    under_way = [
        f"{text.line(names.get(run.commit, run.commit[:9]), 90)} · {text.duration(time.time() - run.time)}"
        for run in state.started
    ]
    return Recorded(
        tag=directory.tag,
        kind=kind,
        what=what,
        condition=condition(state, running),
        started=state.session.began,
        done=sum(map(len, state.runs.values())),
        left=sum(runs_left(result.plan, chain(*result.undecided), state.runs).values()) if result else 0,
        in_progress=tuple(under_way) if running else (),
        shown=shown_of(result) if result else None,
        damage=tuple(damage),
    )


class WatchedReplay:
    """Draws the present state of a replay or promotion: its ledger, read anew for every picture."""

    def __init__(self, directory: RunDirectory):
        self.directory = directory
        self.damage: tuple[str, ...] = ()  # one text for each ledger line that cannot be read

    def picture(self, _width: int, height: int) -> RenderableType:
        """The panel for a terminal of ``height`` lines; 0: drawn once, nothing can be pressed."""
        found = read_recorded(self.directory)
        self.damage = found.damage
        under_way = (Text(line, style="cyan") for line in found.in_progress)
        shown = [Text(), terminal(found.shown)] if found.shown else [Text("getting ready")]
        foot = "q quits, the runs continue" if found.condition == "running" and height else ""
        parts: list[RenderableType] = [bar(found.share, found.progress), *under_way, *shown]
        return framed(parts, found.tag, condition_text(found.condition), foot)
