"""``overnight replay``: train the commits of a branch again."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from agent.cli.output import say, show
from agent.errors import EnvironmentProblem


def replay(
    what: str,
    seeds: int | None,
    exact: bool,
    ablate: bool,
    check: bool,
    name: str,
    results: Path | None,
    workers: int,
    yes: bool,
    json: bool,
    runs: str,
    **settings: Any,
) -> int:
    from rich.console import Console

    from agent.replay.page import write_replay
    from agent.replay.progress import ReplayProgress
    from agent.replay.replay import Request, prepare, run
    from agent.replay.view import plan_words, replay_json, replay_view

    request = Request(what, seeds, exact, ablate, name, results, workers, settings)
    prepared = prepare(request, Path(runs), say)
    plan, cost = prepared.plan, prepared.cost
    say(plan_words(plan, cost))
    if cost.runs and not yes and not _confirmed():
        return 130
    result = run(prepared, ReplayProgress(Console(stderr=True, highlight=False), plan.metric, cost.runs))
    show(json, lambda: replay_json(result), lambda: replay_view(result), paged=False)
    page = prepared.directory.path / "replay.html"
    try:
        write_replay(result, page)
        say(f"page: {page}")
    except EnvironmentProblem as error:  # the table was printed already
        say(f"no page: {error}")
    if not result.complete:
        say("interrupted. The same command continues.")
        return 130
    return 1 if check and not result.reproduced else 0


def _confirmed() -> bool:
    """Ask on a terminal; a script is not asked."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return True
    print("Start? [Y/n] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("", "y", "yes")
