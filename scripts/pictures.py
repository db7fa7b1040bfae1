"""The pictures of the documentation, made of a real run: `python scripts/pictures.py RUN_DIRECTORY`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from rich.console import Console

from agent.ledger import fold, read
from agent.report import write_report
from agent.rundir import RunDirectory
from agent.views.log import log_table
from agent.views.status import status_panel

ROOT = Path(__file__).resolve().parents[1]
IMAGES = ROOT / "docs" / "images"
sys.path.insert(0, str(ROOT / "tests" / "support"))


def main() -> int:
    from browser import Browser

    directory = Path(sys.argv[1])
    IMAGES.mkdir(exist_ok=True)
    with Browser(1280, 1000) as browser:
        browser.open(write_report(directory))
        browser.picture(IMAGES / "report.png", height=980)
    state, settings = (
        fold(read(directory / "ledger.jsonl")),
        RunDirectory(directory.parent, directory.name).read_settings(),
    )
    with open(os.devnull, "w") as nowhere:
        console = Console(file=nowhere, record=True, width=118, highlight=False)
        for command, shown in (
            (f"overnight status {directory.name}", status_panel(state, settings, state.last_time, False)),
            (f"overnight log {directory.name} --all", log_table(state, all=True)),
        ):
            console.print(f"[bold]$ {command}[/]")
            console.print(shown)
        console.save_svg(str(IMAGES / "terminal.svg"), title="the morning after")
    return 0


if __name__ == "__main__":
    sys.exit(main())
