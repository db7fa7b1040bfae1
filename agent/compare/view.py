"""A comparison as a table, a page with curves, CSV and JSON.

``comparison_json`` is schema ``overnight.compare/1``: an object with schema, tag, metric, goal, complete, methods (a
list, best mean first: method, seeds, mean, sd (null with one seed), rank (mean over the seeds that all have; null),
failed_share, trials, sources (trials by who drew the point), training_seconds), tests (pairs of methods: one, other,
seeds, difference (one minus other), p (null, and then note says why), p_holm, note), cells (method, seed, tag,
complete, trials, failed, statuses (of failures), sources, best (after each trial, from the baseline on; null while
nothing was measured), training_seconds, self_reported) and paper (figures of arXiv 2603.24647, theirs: method, theirs,
value, failed, version).
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from agent import text
from agent.compare import paper
from agent.compare.chart import curves
from agent.compare.statistics import SEEDS_TO_TEST, Contrast, Row, Test, pair_tests, rows
from agent.errors import EnvironmentProblem
from agent.review.report.html import render_page
from agent.types import to_json

if TYPE_CHECKING:
    from agent.compare.plan import Plan

SCHEMA = "overnight.compare/1"


def comparison_json(contrast: Contrast, tag: str) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "tag": tag,
        "metric": text.line(contrast.metric),
        "goal": contrast.goal,
        "complete": contrast.complete,
        "methods": [to_json(row) for row in rows(contrast)],
        "tests": [to_json(test) for test in pair_tests(contrast)],
        "cells": [{**to_json(cell), "trials": cell.trials} for cell in contrast.cells],
        "paper": [to_json(figure) for figure in paper.FIGURES],
    }


def comparison_csv(contrast: Contrast) -> str:
    """A line for each cell."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["method", "seed", "tag", "complete", "trials", "failed", "best", "training_seconds", "sources"])
    for cell in contrast.cells:
        best = "" if cell.final is None else repr(cell.final)
        writer.writerow(
            [cell.method, cell.seed, cell.tag, str(cell.complete).lower(), cell.trials, cell.failed, best,
             f"{cell.training_seconds:.3f}", words(cell.sources)]
        )  # fmt: skip
    return out.getvalue()


def comparison_table(contrast: Contrast) -> RenderableType:
    """What stands on a terminal."""
    header, *lines = method_lines(contrast)
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for k, name in enumerate(header):
        table.add_column(name, justify="left" if k in (0, len(header) - 1) else "right", no_wrap=True)
    for line in lines:
        table.add_row(*line)
    beside = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for name in ("paper, theirs", "value", "failed", "version"):
        beside.add_column(name, justify="left" if name in ("paper, theirs", "version") else "right", no_wrap=True)
    for line in paper_lines(contrast):
        beside.add_row(*line)
    parts: list[RenderableType] = [table]
    if not contrast.complete:
        done = sum(cell.complete for cell in contrast.cells)
        parts += [Text(f"{done} of {len(contrast.cells)} sessions are complete; only they count.")]
    if any(cell.self_reported for cell in contrast.cells):
        parts.append(Text(text.LEGEND))
    if len(contrast.methods) > 1:
        parts += [Text(), *(Text(line) for line in test_lines(contrast))]
    if beside.row_count:
        parts += [Text(), beside, Text(f"{paper.PAPER}: {paper.SETTING}. Another target: values do not compare.")]
    return Group(*parts)


def method_lines(contrast: Contrast) -> list[tuple[str, ...]]:
    """The head of the table and a line for each method, in words."""
    star = any(cell.self_reported for cell in contrast.cells)
    head = ("method", contrast.metric, "sd", "rank", "failed", "trials", "seeds", "source of trials")
    return [head, *(_method_line(row, star) for row in rows(contrast))]


def _method_line(row: Row, star: bool) -> tuple[str, ...]:
    share = text.MISSING if row.failed_share is None else f"{row.failed_share:.0%}"
    rank = text.MISSING if row.rank is None else f"{row.rank:.1f}"
    mean, sd = text.number(row.mean, star and row.mean is not None), text.number(row.sd)
    return row.method, mean, sd, rank, share, str(row.trials), str(row.seeds), words(row.sources)


def test_lines(contrast: Contrast) -> list[str]:
    found = pair_tests(contrast)
    if found and all(test.p is None and test.seeds < SEEDS_TO_TEST for test in found):
        least = min(test.seeds for test in found)
        return [f"Paired signed-rank test: too few seeds ({least}; it needs {SEEDS_TO_TEST}) to tell methods apart."]
    return ["Paired signed-rank tests (Wilcoxon), p corrected for all pairs (Holm):", *map(_test_line, found)]


def _test_line(test: Test) -> str:
    mean = text.MISSING if test.difference is None else f"{test.difference:+.4f}"
    result = test.note if test.p is None else f"p = {test.p:.3g}, corrected {test.p_holm:.3g}"
    return f"  {test.one} less {test.other}: {mean} over {text.count(test.seeds, 'seed')}; {result}"


def paper_lines(contrast: Contrast) -> list[tuple[str, ...]]:
    """Their figures for the methods that are compared."""
    chosen = [figure for figure in paper.FIGURES if figure.method in contrast.methods]
    return [
        (f.theirs, f"{f.value:.4f}", text.MISSING if f.failed is None else f"{f.failed:.0%}", f.version) for f in chosen
    ]


def words(sources: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(sources.items(), key=lambda item: -item[1]))


def write_files(contrast: Contrast, plan: Plan, home: Path) -> Path:
    """compare.csv and compare.html of a comparison; returns the path of the latter."""
    from agent.rundir.directory import replace_file

    try:
        replace_file(home / "compare.csv", comparison_csv(contrast))
        replace_file(home / "compare.html", comparison_page(contrast, plan))
    except OSError as error:
        raise EnvironmentProblem(f"cannot write {home}: {error.strerror}.") from error
    return home / "compare.html"


def comparison_page(contrast: Contrast, plan: Plan) -> str:
    """One self-contained page, without scripts."""
    header, *lines = method_lines(contrast)
    return render_page(
        "compare.html",
        tag=plan.tag,
        metric=text.line(contrast.metric),
        budget=_budget(plan),
        complete=sum(cell.complete for cell in contrast.cells),
        cells=[(c, text.number(c.final, c.self_reported), words(c.sources)) for c in contrast.cells],
        charts=[curves(contrast, *size) for size in ((960, 400), (420, 330))],
        key=list(enumerate(contrast.methods)),
        header=header,
        lines=lines,
        tests=test_lines(contrast) if len(contrast.methods) > 1 else [],
        paper=paper_lines(contrast),
        paper_words=f"{paper.PAPER}: {paper.SETTING}. {paper.REMARK}",
        legend=text.LEGEND if any(c.self_reported for c in contrast.cells) else "",
    )


def _budget(plan: Plan) -> str:
    settings = plan.settings
    parts = [text.count(settings["trials"], "trial")] if settings.get("trials") else []
    parts += [f"{settings['train_hours']:g} h of training"] if settings.get("train_hours") else []
    return " or ".join(parts)
