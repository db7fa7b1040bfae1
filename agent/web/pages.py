"""The pages of the server, from files that it only reads: the list of runs, a run's report, and what it does now."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from typing import Any

from agent import text
from agent.curves import Point, curve_of
from agent.observers.activity import OVER, Activity
from agent.observers.watched import Watched
from agent.replay.recorded import Recorded, read_recorded
from agent.replay.shown import Shown, page
from agent.review.data.runs import condition, overview
from agent.review.report import charts
from agent.review.report.html import render_page
from agent.review.report.report import report_page
from agent.rundir.directory import RunDirectory, find_replays, find_runs

Stamp = tuple[int, int]  # of a run: changes with its ledger, changes with what it does now
KEPT = 20  # pages of runs in memory


class Pages:
    """The pages of one folder of runs. Its methods may be called from several threads."""

    def __init__(self, root: Path):
        self._root = root
        self._watched: dict[str, Watched] = {}
        self._pages: dict[str, tuple[int, str]] = {}  # by tag: stamp of the ledger, and page; one page per run
        self._lock = Lock()

    def stamps(self) -> dict[str, Stamp]:
        """What changes with each run."""
        return {tag: _stamp(RunDirectory(self._root, tag)) for tag in self._tags()}

    def runs(self) -> str:
        """The list of runs, and of replays and promotions, the newest first."""
        rows = overview(self._root, lambda _problem: None)[::-1]
        replays = [read_recorded(RunDirectory(self._root, name)) for name in reversed(find_replays(self._root))]
        replays = [replay for replay in replays if replay.shown]
        return render_page("runs.html", live=True, rows=rows, replays=replays, folder=str(self._root))

    def run(self, tag: str) -> str | None:
        """The report of a run, or the page of a replay or promotion; None if there is no such directory."""
        directory = self._directory(tag)
        if directory is None:
            return None
        stamp = _stamp(directory)[0]
        with self._lock:
            known = self._pages.get(tag)
            if known is None or known[0] != stamp:
                known = self._pages[tag] = stamp, _page(directory, stamp)
                while len(self._pages) > KEPT:
                    self._pages.pop(next(iter(self._pages)))
        return known[1]

    def now(self, tag: str) -> str | None:
        """What a run does now, as a fragment of its page; None if there is no such directory."""
        directory = self._directory(tag)
        if directory is None:
            return None
        if not directory.settings.exists():
            return _replay_now(read_recorded(directory))
        with self._lock:
            watched = self._watched.setdefault(tag, Watched(directory))
            state = watched.state()
            now, running = time.time(), directory.running()
            activity = watched.activity(state, now)
            gpu = watched.gpu(state) if running else ""
        if not running:
            return _fragment(condition(state, running))
        points = zip(activity.shares, activity.losses, strict=False)
        own = [Point(share, loss, k) for k, (share, loss) in enumerate(points)]
        seed = state.started[-1].seed if state.started else None  # of the incumbent's curve, if it ran under this seed
        best = curve_of(directory.path, sorted(state.runs.get(state.incumbent, ()), key=lambda run: run.seed != seed))
        record = state.of_trial(activity.trial) if activity.trial else None
        doing = f"trial {activity.trial}" if activity.trial else "the baseline"
        return _fragment(
            condition(state, running),
            f"{doing}: {activity.phase}" if activity.phase not in ("", OVER) else "",
            [(name, words) for name, words in _rows(activity, best, gpu, now - activity.time) if words],
            subject=text.line(record.proposal.subject) if record else "",
            picture=charts.curve_chart(own, best, 400, 170) if state.started else "",
            share=activity.progress,
        )

    def _tags(self) -> list[str]:
        return [*find_runs(self._root), *find_replays(self._root)]

    def _directory(self, tag: str) -> RunDirectory | None:
        return RunDirectory(self._root, tag) if tag in self._tags() else None


def _page(directory: RunDirectory, stamp: int) -> str:
    """The page of a run, replay or promotion whose ledger has this stamp."""
    if directory.settings.exists():
        return report_page(directory.path, str(stamp))[1]
    found = read_recorded(directory)
    return page(found.shown or Shown(found.what, ("getting ready",)), directory.tag, str(stamp))


def _replay_now(found: Recorded) -> str:
    rows = [("in progress", line) for line in found.in_progress]
    share = found.share if found.condition == "running" else None
    return _fragment(found.condition, found.progress, rows, share=share)


def _fragment(condition: str, doing: str = "", rows: Sequence[tuple[str, str]] = (), **more: Any) -> str:
    """What a run does now; ``more``: subject and picture of the trial, and the share of its budget that it has used."""
    usual = {"subject": "", "picture": "", "share": None}
    return render_page("live.html", condition=condition, doing=doing, rows=rows, **{**usual, **more})


def _rows(activity: Activity, best: list[Point], gpu: str, quiet: float) -> list[tuple[str, str]]:
    speed, reached = activity.tokens_per_second, activity.progress or 0.0
    there = next((point.loss for point in reversed(best) if point.progress <= reached), None)
    return [
        ("run", activity.role),
        ("step", str(activity.step or "")),
        ("loss", "" if activity.loss is None else f"{activity.loss:.4f}"),
        ("best's loss", "" if activity.loss is None or there is None else f"{there:.4f}"),
        ("tokens/s", "" if speed is None else f"{speed:,.0f}"),
        ("in this phase", text.duration(activity.seconds)),
        ("left", "" if activity.seconds_left is None else text.duration(activity.seconds_left)),
        ("others under way", str(activity.running - 1) if activity.running > 1 else ""),
        ("gpu", gpu),
        ("note", text.line(activity.note)),
        ("last sign of life", f"{text.duration(quiet)} ago" if quiet > 30 else ""),
    ]


def _stamp(directory: RunDirectory) -> Stamp:
    return _changed(directory.ledger), _changed(directory.progress) + directory.running()


def _changed(file: Path) -> int:
    try:
        stat = file.stat()
    except OSError:
        return 0
    return stat.st_mtime_ns ^ (stat.st_size << 1)
