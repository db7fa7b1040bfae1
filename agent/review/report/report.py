"""report.html and progress.png of a run, from its ledger, run.toml and trials/."""

from __future__ import annotations

import logging
import time
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from agent import text
from agent.errors import EnvironmentProblem, UsageError
from agent.ledger.recovery import read_state, uncollected
from agent.ledger.state import State
from agent.review.data.status import SETUP
from agent.review.data.summary import Summary, summarize
from agent.review.report import charts
from agent.review.report import png as picture
from agent.review.report import sections as morning
from agent.review.report.html import renderer, write_page
from agent.review.report.parameter_charts import parameter_charts
from agent.review.report.search_charts import search_charts

MOST_BYTES = 3 << 20
DIFF_LIMITS = ((20_000, 5_000), (12_000, 1_500), (4_000, 0), (800, 0))  # characters: of kept edits, of all others
log = logging.getLogger(__name__)


@uncollected()  # matplotlib alone is some 70,000 objects
def write_report(run_dir: Path) -> Path:
    """Write report.html, and progress.png where matplotlib is installed; return the path of the former.

    Raises:
        UsageError: this is not the directory of a run.
        EnvironmentProblem: Jinja2 is not installed, or the files cannot be written.
    """
    if not run_dir.is_dir() or not ((run_dir / "ledger.jsonl").exists() or (run_dir / "run.toml").exists()):
        raise UsageError(f"{run_dir} has neither ledger.jsonl nor run.toml: this is not the directory of a run.")
    state, damage = read_state(run_dir / "ledger.jsonl")
    run = read_run(run_dir / "run.toml")
    for problem in damage:
        log.warning(problem)
    summary = summarize(state)
    place = run_dir / "report.html"
    write_page(place, page(state, run, run_dir, damage, summary))
    try:
        picture.draw_progress(state, summary, run_dir / "progress.png")
    except ImportError:
        log.warning("no progress.png: it needs matplotlib (pip install 'overnight[report]').")
    except OSError as error:
        raise EnvironmentProblem(f"cannot write {place}: {error.strerror}.") from error
    return place


def read_run(path: Path) -> dict[str, Any]:
    """The tables of run.toml; {} for one that is missing or damaged, since the report can do without."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8", errors="replace"))
    except (OSError, tomllib.TOMLDecodeError):
        return {}


def page(
    state: State, run: Mapping[str, Any], run_dir: Path, damage: Sequence[str] = (), summary: Summary | None = None
) -> str:
    """The whole page. Long nights show less of each edit, until it fits into ``MOST_BYTES``.

    ``damage`` is what could not be read, a text for each line of the ledger.
    """
    render = renderer("report.html")
    summary = summary or summarize(state)
    fixed = {**_fixed(state, run, summary), "damage": [text.line(problem) for problem in damage]}
    html = ""
    for kept, others in _limits(state):
        rows = {
            "kept": morning.kept_rows(state, run_dir, kept),
            "attempts": morning.attempt_rows(state, run_dir, others, charts.MOST_MARKS),
        }
        html = render({**fixed, **rows})
        if len(html.encode()) <= MOST_BYTES:
            break
    return html


def _limits(state: State) -> list[tuple[int, int]]:
    """Those of ``DIFF_LIMITS`` that are worth a try: the bare diffs fit, and less is shown than by the one before."""
    lengths = [(len(r.proposal.diff), r.decision == "keep") for r in state.finished[-charts.MOST_MARKS :]]
    sizes = {sum(min(n, kept if keep else others) for n, keep in lengths): (kept, others)
             for kept, others in reversed(DIFF_LIMITS)}  # fmt: skip
    fitting = [limits for size, limits in sizes.items() if size <= MOST_BYTES]
    return fitting[::-1] or [DIFF_LIMITS[-1]]


def _fixed(state: State, run: Mapping[str, Any], summary: Summary) -> dict[str, Any]:
    """Everything of the page but the edits themselves."""
    parts = dict(summary.split)
    words = {name: text.duration(seconds) for name, seconds in parts.items()}
    table = run.get("run")
    settings = table if isinstance(table, Mapping) else {}
    return {
        "summary": summary,
        "tag": summary.tag or str(settings.get("tag", "")) or "run",
        "setup": [str(value) for name in SETUP if (value := getattr(state.session, name))],
        "as_of": time.strftime("%Y-%m-%d %H:%M", time.localtime(state.last_time)) if state.last_time else "",
        "ended": state.ended,
        "lost": state.lost,
        "resumed": state.resumed,
        "headline": morning.headline(summary),
        "how_sure": morning.how_sure(summary),
        "carries_over": morning.carries_over(summary),
        "legend": text.LEGEND if summary.self_reported else "",
        "progress": [charts.progress_chart(state, summary, *size) for size in ((960, 400), (420, 330))],
        "gains": [charts.gain_chart(state, summary, *size) for size in ((960, 300), (420, 260))],
        "parameters": parameter_charts(state),
        "tried": len(state.finished),
        "failures": morning.failure_rows(state, summary),
        "sources": morning.source_rows(state),
        "strip": charts.source_strip(state),
        "search": search_charts(state),
        "usage": morning.usage_rows(state),
        "time_bar": charts.share_bar(parts, words),
        "time_words": list(words.items()),
        "environment": morning.environment_tables(state, run),
    }
