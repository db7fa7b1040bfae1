"""``overnight promote``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from agent.cli.options import Commands, add_command, add_fields
from agent.cli.output import say


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
    from agent.cli.replay import train_again
    from agent.replay.promote import Request, prepare

    request = Request(tag, edits, values, budget, seeds, ablate, max_hours, name, settings)
    result = train_again(prepare(request, Path(runs), say), yes, json)
    if result is None:
        return 130
    if held := result.held:
        say(f"overnight branch {tag} --only-held makes a branch of the {len(held)} that hold.")
    return 0
