"""``overnight replay``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.cli.options import Commands, add_command, add_fields
from agent.cli.output import say, show
from agent.errors import EnvironmentProblem

if TYPE_CHECKING:
    from agent.replay.runner import Plan


def add(commands: Commands) -> None:
    parser = add_command(
        commands, "replay", replay, "json runs cache", usage="overnight replay TAG|BRANCH|A..B [OPTIONS]"
    )
    parser.add_argument(
        "what", metavar="TAG|BRANCH|A..B", help="a run, or a branch or range of the target's repository"
    )
    parser.add_argument("--seeds", type=int, help="runs per commit (default: 3; with --exact 1)")
    parser.add_argument("--exact", action="store_true", help="use the recorded schedule, seed and threads: same bits")
    parser.add_argument(
        "--ablate", action="store_true", help="also measure without each edit; put the edits that hold on TAG-minimal"
    )
    parser.add_argument("--check", action="store_true", help="exit with 1 if the branch does not reproduce")
    parser.add_argument("--name", default="", help="name of the replay's folder (default: replay-TAG)")
    parser.add_argument("--results", type=Path, metavar="FILE.tsv", help="recorded values of a branch without trailers")
    parser.add_argument("--workers", type=int, default=1, metavar="K", help="commits in parallel, each on its own GPU")
    add_fields(parser, ("target", "sandbox", "image", "device", "threads", "seed", "budget"))


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
    """Train the commits of a branch again and compare with the recorded values.

    Returns:
        130 if interrupted; 1 with ``check`` if the branch does not reproduce; else 0.
    """
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
    except EnvironmentProblem as error:  # the table was already printed
        say(f"no page: {error}")
    if not result.complete:
        say("interrupted. The same command continues.")
        return 130
    return 1 if check and not result.reproduced else 0
