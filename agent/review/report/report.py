"""report.html and progress.png of a session, from its ledger, run.toml and trials/."""

from __future__ import annotations

import logging
import time
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agent import text
from agent.errors import UsageError
from agent.ledger.recovery import read_state, uncollected
from agent.review.data.attempt import Details, details_of, failure_lines
from agent.review.data.attempts import Attempt
from agent.review.data.diffs import Pieces, diff_lines, highlighted
from agent.review.data.edit_runs import stacked_edits
from agent.review.data.night import Night, night_of
from agent.review.data.server import words_of
from agent.review.data.tables import source_rows
from agent.review.report import charts, png, sections
from agent.review.report.edit_charts import pair_chart, stacked_chart
from agent.review.report.html import NARROW, WIDE, render_page, write_page
from agent.review.report.small_charts import parameter_charts, search_charts
from agent.rundir.directory import writing
from sandbox.packages import install_command

MOST_BYTES = 3 << 20
DIFF_LIMITS = ((20_000, 5_000), (12_000, 1_500), (4_000, 0), (800, 0))  # characters of kept diffs, of other diffs
log = logging.getLogger(__name__)


@uncollected()  # matplotlib alone makes some 70,000 objects
def write_report(run_dir: Path) -> Path:
    """Write report.html, and progress.png if matplotlib is installed; return the path of report.html.

    Raises:
        UsageError: This is not a run directory.
        EnvironmentProblem: Jinja2 is not installed, or the files cannot be written.
    """
    night, page = report_page(run_dir)
    for problem in night.damage:
        log.warning(problem)
    place = run_dir / "report.html"
    write_page(place, page)
    try:
        with writing(run_dir / "progress.png"):
            png.draw_progress(night, run_dir / "progress.png")
    except ImportError:
        log.warning("no progress.png: it needs matplotlib: %s", install_command("overnight[report]"))
    return place


def report_page(run_dir: Path, live: str = "") -> tuple[Night, str]:
    """Return a session and its page.

    Args:
        live: Stamp of the ledger, where a server sends the page and keeps it up to date.

    Raises:
        UsageError: This is not a run directory.
        EnvironmentProblem: Jinja2 is not installed.
    """
    if not run_dir.is_dir() or not ((run_dir / "ledger.jsonl").exists() or (run_dir / "run.toml").exists()):
        raise UsageError(f"{run_dir} has neither ledger.jsonl nor run.toml: this is not a run directory.")
    state, damage = read_state(run_dir / "ledger.jsonl")
    night = night_of(state, _read_run(run_dir / "run.toml"), damage=damage)
    kept = [details_of(record, state, run_dir) for record in state.kept]
    return night, _page(night, kept, run_dir, live)


def _read_run(path: Path) -> dict[str, Any]:
    """The tables of run.toml; {} for a missing or damaged file, which the report does not need."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8", errors="replace"))
    except (OSError, tomllib.TOMLDecodeError):
        return {}


def _page(night: Night, kept: Sequence[Details], run_dir: Path, live: str) -> str:
    """The whole page. Diffs are cut until it fits into ``MOST_BYTES``."""
    fixed, html = {**_fixed(night), "stamp": live, "place": run_dir.name}, ""
    latest = night.attempts[-charts.MOST_MARKS :]
    curves = [charts.curve_chart(details.curve, details.parent_curve) for details in kept]
    for kept_limit, other_limit in _limits(latest):
        diffs = [highlighted(_diff(details.attempt, kept_limit)) for details in kept]
        edits = list(zip(kept, diffs, curves, strict=True))
        rows = [_row(attempt, run_dir, other_limit) for attempt in latest]
        html = render_page("report.html", bool(live), kept=edits, attempts=rows, **fixed)
        if len(html.encode()) <= MOST_BYTES:
            break
    return html


def _row(attempt: Attempt, run_dir: Path, limit: int) -> tuple[Attempt, str, list[tuple[str, Pieces]], list[str]]:
    """A trial with its rationale, diff and decisive lines; for kept edits another section shows these."""
    if not limit or attempt.decision == "keep":
        return attempt, "", [], []
    rows = [(kind, [("", words)]) for kind, words in _diff(attempt, limit)]  # not highlighted: there may be thousands
    rationale = text.clean(attempt.record.proposal.rationale).strip()[:4000]
    return attempt, rationale, rows, failure_lines(attempt.record, run_dir)


def _diff(attempt: Attempt, limit: int) -> list[tuple[str, str]]:
    diff = attempt.record.proposal.diff
    rest = [("hunk", "… the whole diff is in the run directory")] if len(diff) > limit else []
    return diff_lines(diff[:limit]) + rest


def _limits(attempts: Sequence[Attempt]) -> list[tuple[int, int]]:
    """The ``DIFF_LIMITS`` to try: those whose diffs alone fit, and that show less than the limit before."""
    lengths = [(len(attempt.record.proposal.diff), attempt.decision == "keep") for attempt in attempts]
    sizes = {sum(min(n, kept if keep else other) for n, keep in lengths): (kept, other)
             for kept, other in reversed(DIFF_LIMITS)}  # fmt: skip
    fitting = [limits for size, limits in sizes.items() if size <= MOST_BYTES]
    return fitting[::-1] or [DIFF_LIMITS[-1]]


def _fixed(night: Night) -> dict[str, Any]:
    """Every value of the template except the rows of attempts."""
    summary, state, stacked = night.summary, night.state, stacked_edits(night.state)
    words = {name: text.duration(seconds) for name, seconds in summary.split.items()}
    return {
        "night": night,
        "state": state,
        "summary": summary,
        "tag": night.tag or "run",
        "as_of": time.strftime("%Y-%m-%d %H:%M", time.localtime(state.last_time)) if state.last_time else "",
        "ended": text.line(state.ended or ""),
        "sections": sections,
        "legend": text.LEGEND if summary.self_reported else "",
        "progress": [charts.progress_chart(night, WIDE, 400), charts.progress_chart(night, NARROW, 330)],
        "gains": [charts.gain_chart(night, WIDE, 300), charts.gain_chart(night, NARROW, 260)],
        "pairs": [pair_chart(night, WIDE), pair_chart(night, NARROW)],
        "parameters": parameter_charts(night),
        "latest_of": {attempt.status: attempt for attempt in night.attempts},
        "strip": charts.source_strip(night),
        "search": search_charts(night),
        "sources": source_rows(night.attempts),
        "stacked": stacked,
        "carried": stacked_chart(stacked),
        "server": [words_of(problem) for problem in state.server_problems],
        "time_bar": charts.share_bar(summary.split, words),
        "time_words": words,
    }
