"""``overnight replay`` and ``overnight promote``: kept edits are trained again."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from rich.console import Console

from agent.cli.output import say, show
from agent.errors import EnvironmentProblem
from agent.replay.outcomes import Result
from agent.replay.plan import Cost
from agent.replay.progress import ReplayProgress
from agent.replay.promote import prepare as prepare_promotion
from agent.replay.replay import prepare as prepare_replay
from agent.replay.run import Prepared, run
from agent.replay.shown import page, terminal
from agent.replay.view import plan_words, result_json, shown_of
from agent.review.report.html import write_page


def replay(check: bool, yes: bool, json: bool, runs: str, **options: Any) -> int:
    """Returns 130 if interrupted; 1 with ``check`` if the branch does not reproduce; else 0."""
    result = _train_again(prepare_replay(Path(runs), say, **options), yes, json)
    if result is None:
        return 130
    return 1 if check and not result.reproduced else 0


def promote(yes: bool, json: bool, runs: str, **options: Any) -> int:
    """Returns 130 if interrupted; else 0."""
    prepared = prepare_promotion(Path(runs), say, **options)
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
    plan, cost = prepared.plan, prepared.cost
    prepared.places[0].caution(say)
    if not _agreed(plan_words(plan, cost), cost, yes):
        return None
    result = run(prepared, ReplayProgress(Console(stderr=True, highlight=False), plan.metric, cost.runs))
    shown = shown_of(result)
    show(json, result, result_json, lambda _result: terminal(shown), paged=False)
    place = prepared.directory.path / f"{plan.kind}.html"
    try:
        write_page(place, page(shown))
        say(f"the page: {place}")
    except EnvironmentProblem as error:
        say(f"the page was not written: {error}")
    if not result.complete:
        say("stopped early. The same command continues.")
    return result if result.complete else None
