"""``overnight replay`` and ``overnight promote``: kept edits are trained again."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.cli.options import Commands, add_command, add_fields
from agent.cli.output import say, show
from agent.errors import EnvironmentProblem

if TYPE_CHECKING:
    from agent.replay.outcomes import Result
    from agent.replay.plan import Cost
    from agent.replay.run import Prepared

ALSO = ("seed", "workers", "ray_address")  # settings that do not come from the session


def add(commands: Commands) -> None:
    usage = "overnight replay TAG|BRANCH|A..B [OPTIONS]"
    parser = add_command(commands, "replay", replay, "json runs cache", usage=usage)
    parser.add_argument(
        "what", metavar="TAG|BRANCH|A..B", help="a session, or a branch or range of the target's repository"
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
    add_fields(parser, (*own, *ALSO), own)

    parser = add_command(commands, "promote", promote, "tag json runs cache")
    parser.add_argument("edits", nargs="*", metavar="COMMIT", help="kept edits, by commit or trial (default: all)")
    parser.add_argument(
        "--set", action="append", default=[], dest="values", metavar="NAME=VALUE[,VALUE]",
        help="value of the hyperparameter block; several values are several settings",
    )  # fmt: skip
    parser.add_argument(
        "--budget", default="", dest="budgets", metavar="BUDGET[,BUDGET]",
        help="training per run (default: the session's)",
    )  # fmt: skip
    parser.add_argument("--seeds", type=int, default=8, help="pairs of runs for each edit at most (default: 8)")
    parser.add_argument("--ablate", action="store_true", help="compare the branch with and without each edit")
    parser.add_argument("--max-hours", type=float, help="start no run after this number of hours")
    parser.add_argument("--name", default="", help="name of the promotion's folder (default: promote-TAG)")
    parser.add_argument("--yes", action="store_true", help="start without asking on a terminal")
    promoted = ("target", "sandbox", "image", "device", "threads")
    add_fields(parser, (*promoted, *ALSO), promoted)


def replay(check: bool, yes: bool, json: bool, runs: str, **options: Any) -> int:
    """Train the commits of a branch again and compare with the recorded values.

    Returns:
        130 if interrupted; 1 with ``check`` if the branch does not reproduce; else 0.
    """
    from agent.replay.replay import prepare

    result = _train_again(prepare(Path(runs), say, **options), yes, json)
    if result is None:
        return 130
    return 1 if check and not result.reproduced else 0


def promote(yes: bool, json: bool, runs: str, **options: Any) -> int:
    """Train the kept edits at a larger size or budget, and show which of them hold.

    Returns:
        130 if interrupted; else 0.
    """
    from agent.replay.promote import prepare

    prepared = prepare(Path(runs), say, **options)
    result = _train_again(prepared, yes, json)
    if result is None:
        return 130
    if held := result.held:
        say(f"overnight branch {prepared.plan.what} --only-held: a branch of the {len(held)} with a gain throughout.")
    return 0


def _agreed(words: str, cost: Cost, yes: bool) -> bool:
    """Say what would run, and ask on a terminal; a script is not asked."""
    say(words)
    if yes or not cost.runs or not (sys.stdin.isatty() and sys.stderr.isatty()):
        return True
    print("Start? [Y/n] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("", "y", "yes")


def _train_again(prepared: Prepared, yes: bool, json: bool) -> Result | None:
    """Run a prepared replay or promotion and show its result; None if it was declined or is not complete."""
    from rich.console import Console

    from agent.replay.progress import ReplayProgress
    from agent.replay.run import run
    from agent.replay.shown import terminal, write
    from agent.replay.view import plan_words, result_json, shown_of

    plan, cost = prepared.plan, prepared.cost
    prepared.places[0].caution(say)
    if not _agreed(plan_words(plan, cost), cost, yes):
        return None
    result = run(prepared, ReplayProgress(Console(stderr=True, highlight=False), plan.metric, cost.runs))
    shown = shown_of(result)
    show(json, lambda: result_json(result), lambda: terminal(shown), paged=False)
    page = prepared.directory.path / f"{plan.kind}.html"
    try:
        write(shown, page)
        say(f"the page: {page}")
    except EnvironmentProblem as error:
        say(f"the page was not written: {error}")
    if not result.complete:
        say("stopped early. The same command continues.")
    return result if result.complete else None
