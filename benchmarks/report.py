"""How long a browser takes to show the report of a night: python -m benchmarks.report [--trials 300] [--rounds 7]

Milliseconds in real Chromium from the navigation to the first frame after everything is laid out, the page's own script
included; and the size of the page. The night is a made one, of the tests. The goals: 2 s and 3 MB for 300 trials.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from statistics import median

from agent.report import write_report

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "support"))
DRAWN = "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(performance.now()))))"


def main() -> int:
    from browser import CHROMIUM, Browser  # type: ignore[import-not-found]
    from nights import write_night  # type: ignore[import-not-found]

    parser = argparse.ArgumentParser(prog="python -m benchmarks.report", description=__doc__)
    parser.add_argument("--trials", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=7)
    given = parser.parse_args()
    if not CHROMIUM:
        print("this needs Chromium: scripts/chromium.sh installs it", file=sys.stderr)
        return 3
    with tempfile.TemporaryDirectory() as folder, Browser() as browser:
        page = write_report(write_night(Path(folder) / "night", given.trials))
        taken = []
        for _ in range(given.rounds):
            browser.open(page)
            taken.append(float(browser.run(DRAWN)))
        rows = browser.run("document.querySelectorAll('tbody tr[id^=trial-]').length")
        print(
            f"{rows} attempts, {page.stat().st_size / 1e6:.2f} MB: {median(taken):.0f} ms, median of {given.rounds} "
            f"({min(taken):.0f} to {max(taken):.0f}); complaints of the console: {len(browser.complaints)}"
        )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
