"""The pictures of the documentation, made of a real run: `python scripts/pictures.py RUN_DIRECTORY`."""

from __future__ import annotations

import sys
from pathlib import Path

from rich.console import Console

from agent.ledger import fold, read
from agent.report import write_report
from agent.views.log import log_table

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
    with open("/dev/null", "w") as nowhere:
        console = Console(file=nowhere, record=True, width=110, highlight=False)
        console.print(log_table(fold(read(directory / "ledger.jsonl"))))
        console.save_svg(str(IMAGES / "log.svg"), title=f"overnight log {directory.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
