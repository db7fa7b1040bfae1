"""``overnight export``."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from agent.cli.output import say
from agent.cli.runs import existing, folder_of_runs, load
from agent.compare.plan import read_plan
from agent.errors import EnvironmentProblem, OvernightError, UsageError
from agent.observers.trackers.follow import send_run
from agent.observers.trackers.track import TOOLS, parse_tracks
from agent.review.data.export import Session, write_file
from agent.review.data.export import export as text_of
from agent.rundir.directory import RunDirectory, writing
from agent.space.space import SearchSpace
from agent.text import count
from agent.types import Param

FILES = ("optuna", "parquet")


def export(tag: str | None, format: str, output: Path | None, runs: str, track: str | None = None) -> None:
    """``tag`` may name a comparison: its sessions are the studies, or the rows of one table."""
    if track is not None:
        if output is not None or format != "tsv":
            raise UsageError("--track sends the session to trackers: leave out --format and --output.")
        _send(existing(runs, tag), track, runs)
        return
    sessions, settings = _sessions(tag, runs)
    if format in FILES:
        if output is None:
            raise UsageError(f"--format {format} writes a file: add --output FILE.")
        write_file(sessions, format, output, _space(settings))
    elif sessions[0].columns:
        raise UsageError(
            f"{tag} is a comparison: --format {' or '.join(FILES)}, or `overnight compare --tag {tag} --csv`."
        )
    elif output is None:
        sys.stdout.write(text_of(sessions[0].state, format))
        return
    else:
        with writing(output):
            output.write_text(text_of(sessions[0].state, format), encoding="utf-8")
    trials = count(sum(len(session.state.finished) for session in sessions), "trial")
    of = f" of {count(len(sessions), 'session')}" if len(sessions) > 1 else ""
    say(f"{output}: {trials}{of} as {format}")


def _sessions(tag: str | None, runs: str) -> tuple[Sequence[Session], Mapping[str, Any]]:
    """One session, or the sessions of a comparison that have begun; and the settings of one of them."""
    root = folder_of_runs(runs)
    plan = read_plan(root, tag) if tag else None
    if plan is None:
        state, settings = load(existing(runs, tag))
        return [Session(state)], settings
    cells = [(method, seed, RunDirectory(root, plan.name(method, seed))) for method, seed in plan.cells]
    begun = [
        Session(load(directory)[0], {"comparison": plan.tag, "method": method, "seed": seed})
        for method, seed, directory in cells
        if directory.settings.exists()
    ]
    if not begun:
        raise UsageError(f"no session of comparison {tag} has begun. `overnight compare --tag {tag}` runs them.")
    return begun, {"run": plan.settings}


def _send(directory: RunDirectory, setting: str, runs: str) -> None:
    """Send a session to trackers that hold it in part or not at all."""
    tracks = parse_tracks(setting, runs)
    if not tracks:
        raise UsageError(f"--track {setting!r}: name a tracker: {', '.join(TOOLS)}.")
    for track in tracks:
        with contextlib.redirect_stdout(io.StringIO()):  # the libraries print; stdout is for data
            held, problem = send_run(directory.path, track)
        if problem:
            raise EnvironmentProblem(
                f"{track}: {problem}. It holds {count(held, 'trial')} so far; the command adds the rest."
            )
        say(f"{track} holds {count(held, 'trial')}, the baseline included")


def _space(settings: Mapping[str, Any]) -> Sequence[Param]:
    """The search space of the session's target, if the target is still there."""
    try:
        return SearchSpace.from_toml(Path(str(settings["run"]["target"]))).params
    except (OvernightError, OSError, KeyError):
        return ()
