"""``overnight replay``: train the commits of a branch again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.cli.output import say, show
from agent.errors import EnvironmentProblem

if TYPE_CHECKING:
    from agent.replay.runner import Plan


def replay(
    what: str,
    seeds: int | None,
    exact: bool,
    ablate: bool,
    check: bool,
    name: str,
    results: Path | None,
    workers: int,
    json: bool,
    runs: str,
    **settings: Any,
) -> int:
    from rich.console import Console

    from agent.replay import setup as replaying
    from agent.replay.view import ReplayView, replay_json, replay_view, write_replay

    def view(plan: Plan) -> ReplayView:
        return ReplayView(Console(stderr=True, highlight=False), plan.metric, plan.rounds * len(plan.steps))

    request = replaying.Request(what, seeds, exact, ablate, name, results, workers, settings)
    result, differs, directory = replaying.perform(request, Path(runs), view, say)
    show(json, lambda: replay_json(result, differs), lambda: replay_view(result, differs), paged=False)
    page = directory.path / "replay.html"
    try:
        write_replay(result, page, differs)
        say(f"the page of this replay: {page}")
    except EnvironmentProblem as error:  # the table was printed already
        say(f"no page: {error}")
    if not result.complete:
        say("interrupted; the same command goes on where it stopped.")
        return 130
    return 1 if check and not result.reproduced else 0
