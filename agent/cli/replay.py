"""``overnight replay``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.cli.options import Commands, add_command, add_fields
from agent.cli.output import confirmed, say, say_page, show

if TYPE_CHECKING:
    from agent.replay.outcomes import Result
    from agent.replay.run import Prepared


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
    parser.add_argument("--yes", action="store_true", help="start without asking on a terminal")
    own = ("target", "sandbox", "image", "python", "device", "threads", "budget")
    add_fields(parser, (*own, "seed", "workers", "ray_address"), own)


def replay(
    what: str,
    seeds: int | None,
    exact: bool,
    ablate: bool,
    check: bool,
    name: str,
    results: Path | None,
    yes: bool,
    json: bool,
    runs: str,
    **settings: Any,
) -> int:
    """Train the commits of a branch again and compare with the recorded values.

    Returns:
        130 if interrupted; 1 with ``check`` if the branch does not reproduce; else 0.
    """
    from agent.replay.replay import Request, prepare

    request = Request(what, seeds, exact, ablate, name, results, settings)
    result = train_again(prepare(request, Path(runs), say), yes, json)
    if result is None:
        return 130
    return 1 if check and not result.reproduced else 0


def train_again(prepared: Prepared, yes: bool, json: bool) -> Result | None:
    """Run a prepared replay or promotion and show its result; None if it was declined or is not complete."""
    from rich.console import Console

    from agent.replay.progress import ReplayProgress
    from agent.replay.run import run
    from agent.replay.shown import terminal, write
    from agent.replay.view import plan_words, result_json, shown_of

    plan, cost = prepared.plan, prepared.cost
    say(plan_words(plan, cost))
    if cost.runs and not yes and not confirmed():
        return None
    result = run(prepared, ReplayProgress(Console(stderr=True, highlight=False), plan.metric, cost.runs))
    shown = shown_of(result)
    show(json, lambda: result_json(result), lambda: terminal(shown), paged=False)
    page = prepared.directory.path / f"{plan.kind}.html"
    say_page(lambda: write(shown, page), page)
    if not result.complete:
        say("stopped early. The same command continues.")
    return result if result.complete else None
