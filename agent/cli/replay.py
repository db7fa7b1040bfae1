"""``overnight replay``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from agent.cli.options import Commands, add_command, add_fields
from agent.cli.output import confirmed, say, say_page, show


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
    from rich.console import Console

    from agent.replay.progress import ReplayProgress
    from agent.replay.replay import Request, prepare, run
    from agent.replay.shown import terminal, write
    from agent.replay.view import plan_words, replay_json, replay_shown

    request = Request(what, seeds, exact, ablate, name, results, settings)
    prepared = prepare(request, Path(runs), say)
    plan, cost = prepared.plan, prepared.cost
    say(plan_words(plan, cost))
    if cost.runs and not yes and not confirmed():
        return 130
    result = run(prepared, ReplayProgress(Console(stderr=True, highlight=False), plan.metric, cost.runs))
    shown = replay_shown(result)
    show(json, lambda: replay_json(result), lambda: terminal(shown), paged=False)
    page = prepared.directory.path / "replay.html"
    say_page(lambda: write(shown, page), page)
    if not result.complete:
        say("interrupted. The same command continues.")
        return 130
    return 1 if check and not result.reproduced else 0
