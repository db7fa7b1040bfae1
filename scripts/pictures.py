"""Make the pictures of the documentation from a real run and its replay: python scripts/pictures.py RUN_DIRECTORY"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from rich.console import Console, RenderableType

from agent.ledger.journal import read
from agent.ledger.state import fold
from agent.replay.progress import ReplayProgress
from agent.replay.replay import prepare
from agent.replay.run import run
from agent.replay.shown import page
from agent.replay.shown import terminal as drawn
from agent.replay.view import shown_of
from agent.review.data.night import night_of
from agent.review.report.html import write_page
from agent.review.report.report import write_report
from agent.review.terminal.log import log_table
from agent.review.terminal.status import status_panel
from agent.rundir.directory import RunDirectory

ROOT = Path(__file__).resolve().parents[1]
IMAGES = ROOT / "docs" / "images"
WIDTH, WIDEST = 118, 150  # characters of a terminal; of one with long lines
sys.path.insert(0, str(ROOT / "tests" / "support"))


def terminal(name: str, title: str, *shown: tuple[str, RenderableType], width: int = WIDTH) -> None:
    """Save a picture of a terminal with these commands and their output."""
    with open(os.devnull, "w") as nowhere:
        console = Console(file=nowhere, record=True, width=width, highlight=False)
        for command, output in shown:
            console.print(f"[bold]$ {command}[/]")
            console.print(output)
        console.save_svg(str(IMAGES / name), title=title)


def replayed(tag: str, runs: Path) -> RenderableType:
    """What the replay of a run prints, and its page; a replay that is done is not done again."""
    replay = prepare(runs, print, tag)
    result = run(replay, ReplayProgress(Console(stderr=True), replay.plan.metric, replay.cost.runs))
    shown = shown_of(result)
    write_page(replay.directory.path / "replay.html", page(shown))
    return drawn(shown)


def main() -> int:
    from browser import Browser  # type: ignore[import-not-found]  # of the tests

    directory = Path(sys.argv[1]).resolve()
    tag = directory.name
    IMAGES.mkdir(exist_ok=True)
    night = night_of(fold(read(directory / "ledger.jsonl")), RunDirectory(directory.parent, tag).read_settings())
    terminal(
        "terminal.svg",
        "the morning after",
        (f"overnight status {tag}", status_panel(night)),
        (f"overnight log {tag} --all", log_table(night, all=True)),
    )
    again = replayed(tag, directory.parent)
    terminal("replay.svg", "once more, before you rely on it", (f"overnight replay {tag}", again), width=WIDEST)
    with Browser(1280, 1000) as browser:
        browser.open(write_report(directory))
        browser.picture(IMAGES / "report.png", height=980)
        browser.open(directory.parent / f"replay-{tag}" / "replay.html")
        browser.picture(IMAGES / "replay.png", height=860)
    return 0


if __name__ == "__main__":
    sys.exit(main())
