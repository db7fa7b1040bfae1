"""How long a report of 300 trials takes until all of it is on the screen, in a real Chromium.

``python -m benchmarks.report --rounds 15`` writes the report of a made-up night and opens it again and again: from
the start of the navigation until every chart and every row of the table is there, the scripts have run, and two frames
were drawn. Wall clock: what else the machine does counts.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path
from statistics import median

from agent.review.report.report import write_report

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "support"))
GOAL = 2.0  # seconds
FOUND = "[document.querySelectorAll('#table tbody tr').length, document.querySelectorAll('svg.chart').length]"
DRAWN = "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(performance.now()))))"


def main() -> int:
    from browser import Browser  # type: ignore[import-not-found]  # of the tests
    from nights import write_night  # type: ignore[import-not-found]

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=15)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, Browser() as browser:
        page = write_report(write_night(Path(folder) / "night", chosen.trials))
        print(f"{chosen.trials} trials: report.html of {page.stat().st_size / 1e6:.2f} MB")
        taken = []
        for _ in range(chosen.rounds):
            browser.call("Page.navigate", url="about:blank")
            browser.open(page)  # until everything is loaded
            taken.append(browser.run(DRAWN) / 1000)
        rows, charts = browser.run(FOUND)
        if rows != chosen.trials:
            raise RuntimeError(f"the table has {rows} rows, expected {chosen.trials}")
        load = os.getloadavg()[0]
        print(f"{rows} rows and {charts} charts on the screen after {median(taken):.2f} s (median of {len(taken)})")
        print(f"first {taken[0]:.2f} s, quickest {min(taken):.2f} s, slowest {max(taken):.2f} s; load {load:.1f}")
        print(f"goal of {GOAL:g} s: {'had' if median(taken) < GOAL else 'NOT had'}")
        if browser.complaints:
            print(f"the console complained: {browser.complaints}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
