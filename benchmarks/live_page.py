"""How fast the live page opens and follows: ``overnight serve`` over several long runs, in a real Chromium.

``python -m benchmarks.live_page`` writes 10 made-up runs of 1,000 trials and starts a server for them. Opened: from the
start of the navigation until all charts and rows are there, scripts have run, and two frames were drawn; cold is the
first time that the server makes a page, with an empty index of runs. Followed: from the write of a ledger line until
the page shows it. Wall clock: other work on the machine counts.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.report import DRAWN, FOUND

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "support"))
GOAL = 2.0  # seconds, for opening and for following
LINES_LEFT = 100  # of the growing run, for the rounds of following
ROWS = "document.querySelectorAll('#table tbody tr').length"


def main() -> int:
    from browser import Browser  # type: ignore[import-not-found]  # of the tests
    from live_page import Growing, serving  # type: ignore[import-not-found]
    from nights import write_night  # type: ignore[import-not-found]

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    chosen = parser.parse_args()
    os.fsync = lambda fd: None  # writing is not measured
    with tempfile.TemporaryDirectory() as folder:
        night = Growing(Path(folder), "growing", chosen.trials)
        while night.left > LINES_LEFT:
            night.grow_trial()
        runs = night.path.parent
        for number in range(1, chosen.runs):
            write_night(runs / f"run-{number}", chosen.trials, number, tag=f"run-{number}")
        with Browser() as browser:
            with serving(runs) as address:
                _say("list, cold", [_opened(browser, address)])
                tags = [path.name for path in sorted(runs.iterdir())]
                _say("a run, cold", [_opened(browser, f"{address}run/{tag}") for tag in tags])
                _say("list", [_opened(browser, address) for _ in range(chosen.rounds)])
                _say("a run", [_opened(browser, f"{address}run/{tags[-1]}") for _ in range(chosen.rounds)])
                print("rows and charts of the last page:", browser.run(FOUND))
                browser.open(f"{address}run/growing")
                time.sleep(2)
                _say("following a trial", [_followed(browser, night) for _ in range(chosen.rounds)])
            print(f"load {os.getloadavg()[0]:.1f}; console: {len(browser.complaints)} complaints")
    return 0


def _opened(browser: Any, address: str) -> float:
    browser.call("Page.navigate", url="about:blank")
    browser.open(address)
    return float(browser.run(DRAWN)) / 1000


def _followed(browser: Any, night: Any) -> float:
    """Seconds from the last ledger line of a trial to its row on the page."""
    before = browser.run(ROWS)
    night.grow_trial()
    began = time.monotonic()
    while browser.run(ROWS) == before:
        time.sleep(0.01)
    return time.monotonic() - began


def _say(what: str, seconds: list[float]) -> None:
    held = "met" if max(seconds) < GOAL else "NOT met"
    print(f"{what}: median {median(seconds):.2f} s, worst {max(seconds):.2f} s of {len(seconds)}; {GOAL:g} s {held}")


if __name__ == "__main__":
    sys.exit(main())
