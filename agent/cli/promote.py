"""``overnight promote``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from agent.cli.options import Commands, add_command, add_fields
from agent.cli.output import confirmed, say, say_page, show


def add(commands: Commands) -> None:
    parser = add_command(commands, "promote", promote, "tag json runs cache")
    parser.add_argument("edits", nargs="*", metavar="COMMIT", help="kept edits, by commit or trial (default: all)")
    parser.add_argument(
        "--set", action="append", default=[], dest="values", metavar="NAME=VALUE[,VALUE]",
        help="value of the hyperparameter block; several values are several settings",
    )  # fmt: skip
    parser.add_argument("--budget", default="", metavar="BUDGET[,BUDGET]", help="training per run (default: the run's)")
    parser.add_argument("--seeds", type=int, default=8, help="pairs of runs for each edit at most (default: 8)")
    parser.add_argument("--ablate", action="store_true", help="compare the branch with and without each edit")
    parser.add_argument("--max-hours", type=float, help="start no run after this number of hours")
    parser.add_argument("--name", default="", help="name of the promotion's folder (default: promote-TAG)")
    parser.add_argument("--yes", action="store_true", help="start without asking on a terminal")
    own = ("target", "sandbox", "image", "device", "threads")
    add_fields(parser, (*own, "seed", "workers", "ray_address"), own)


def promote(
    tag: str,
    edits: list[str],
    values: list[str],
    budget: str,
    seeds: int,
    ablate: bool,
    max_hours: float | None,
    name: str,
    yes: bool,
    json: bool,
    runs: str,
    **settings: Any,
) -> int:
    """Train the kept edits at a larger size or budget, and tell which of them hold.

    Returns:
        130 if interrupted; else 0.
    """
    from rich.console import Console

    from agent.replay.progress import ReplayProgress
    from agent.replay.promote import Request, prepare, run
    from agent.replay.promote_view import plan_words, promote_json, promote_shown
    from agent.replay.shown import terminal, write

    request = Request(tag, edits, values, budget, seeds, ablate, max_hours, name, settings)
    prepared = prepare(request, Path(runs), say)
    plan, cost = prepared.plan, prepared.cost
    say(plan_words(plan, cost))
    if cost.runs and not yes and not confirmed():
        return 130
    result = run(prepared, ReplayProgress(Console(stderr=True, highlight=False), plan.metric, cost.runs))
    shown = promote_shown(result)
    show(json, lambda: promote_json(result), lambda: terminal(shown), paged=False)
    page = prepared.directory.path / "promote.html"
    say_page(lambda: write(shown, page), page)
    if not result.complete:
        say("stopped early. The same command continues.")
        return 130
    if held := result.held:
        say(f"overnight branch {tag} --only-held makes a branch of the {len(held)} that hold.")
    return 0
