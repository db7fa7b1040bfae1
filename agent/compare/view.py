"""A comparison as a table, CSV, JSON and a page with curves.

``comparison_json`` is schema ``overnight.compare/1``. One object:

- tag, metric, goal, complete
- methods, best mean first: method, seeds, mean, sd (null with one seed), rank (mean over the seeds that all have;
  null), failed_share, trials, sources (trials by origin of the proposal), training_seconds
- tests, one per pair of methods: one, other, seeds, difference (one minus other), p (null for the reason in note),
  p_holm, note
- cells, one per session: method, seed, tag, complete, trials, failed, statuses (of failures), sources, best (after each
  trial, from the baseline on; null until a value is measured), training_seconds, self_reported
- paper, figures of arXiv 2603.24647: method, theirs, value, failed, version; empty unless the metric is val_bpb
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from agent import text
from agent.compare import paper
from agent.compare.chart import curves
from agent.compare.plan import Plan
from agent.compare.statistics import SEEDS_TO_TEST, Comparison, Test, pair_tests, rows
from agent.review.report.html import render_page, write_page
from agent.review.terminal.table import Column, Columns
from agent.types import to_json

SCHEMA = "overnight.compare/1"


def comparison_json(comparison: Comparison, tag: str) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "tag": tag,
        "metric": text.line(comparison.metric),
        "goal": comparison.goal,
        "complete": comparison.complete,
        "methods": to_json(rows(comparison)),
        "tests": to_json(pair_tests(comparison)),
        "cells": [{**to_json(cell), "trials": cell.trials, "failed": cell.failed} for cell in comparison.cells],
        "paper": to_json(_published(comparison)),
    }


def comparison_csv(comparison: Comparison) -> str:
    """One line per session."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["method", "seed", "tag", "complete", "trials", "failed", "best", "training_seconds", "sources"])
    for c in comparison.cells:
        best, seconds = "" if c.final is None else repr(c.final), f"{c.training_seconds:.3f}"
        row = [c.method, c.seed, c.tag, str(c.complete).lower(), c.trials, c.failed, best, seconds]
        writer.writerow([*row, _counts(c.sources)])
    return out.getvalue()


def comparison_table(comparison: Comparison) -> RenderableType:
    header, *lines = method_lines(comparison)
    parts: list[RenderableType] = [_table(header, lines)]
    if not comparison.complete:
        done = sum(cell.complete for cell in comparison.cells)
        parts.append(Text(f"{done} of {len(comparison.cells)} sessions are complete; only these count."))
    if comparison.self_reported:
        parts.append(Text(text.LEGEND))
    if len(comparison.methods) > 1:
        parts += [Text(), *map(Text, test_lines(comparison))]
    if published := paper_lines(comparison):
        parts += [Text(), _table(("paper, theirs", "value", "failed", "version"), published)]
        parts.append(Text(f"{paper.PAPER}: {paper.SETTING}. Another target: values cannot be compared."))
    return Group(*parts)


def _table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> Columns:
    """The first and the last column hold words, the others numbers."""
    last = len(header) - 1
    return Columns([Column(name, itemgetter(k), right=0 < k < last) for k, name in enumerate(header)], lines)


def method_lines(comparison: Comparison) -> Sequence[tuple[str, ...]]:
    """The header of the table, and a line per method."""
    lines = [("method", comparison.metric, "sd", "rank", "failed", "trials", "seeds", "source of trials")]
    for row in rows(comparison):
        mean, sd = text.number(row.mean, comparison.self_reported), text.number(row.sd)
        rank = text.MISSING if row.rank is None else f"{row.rank:.1f}"
        figures = (mean, sd, rank, _share(row.failed_share), str(row.trials), str(row.seeds))
        lines.append((row.method, *figures, _counts(row.sources)))
    return lines


def _share(value: float | None) -> str:
    return text.MISSING if value is None else f"{value:.0%}"


def test_lines(comparison: Comparison) -> list[str]:
    found = pair_tests(comparison)
    least = min((test.seeds for test in found), default=0)
    if found and all(test.seeds < SEEDS_TO_TEST for test in found):
        return [f"Paired signed-rank test: too few seeds ({least}; it needs {SEEDS_TO_TEST}) to tell methods apart."]
    return ["Paired signed-rank tests (Wilcoxon), p corrected for all pairs (Holm):", *map(_test_line, found)]


def _test_line(test: Test) -> str:
    mean = text.MISSING if test.difference is None else f"{test.difference:+.4f}"
    result = test.note if test.p is None else f"p = {test.p:.3g}, corrected {test.p_holm:.3g}"
    return f"  {test.one} minus {test.other}: {mean} over {text.count(test.seeds, 'seed')}; {result}"


def paper_lines(comparison: Comparison) -> list[tuple[str, ...]]:
    """Published figures of the methods that are compared."""
    return [
        (f.theirs, f"{f.value:.4f}", _share(f.failed), f.version)
        for f in _published(comparison)
        if f.method in comparison.methods
    ]


def _published(comparison: Comparison) -> tuple[paper.Figure, ...]:
    """The figures are val_bpb: beside another metric they say nothing."""
    return paper.FIGURES if comparison.metric == "val_bpb" else ()


def _counts(sources: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(sources.items(), key=lambda item: -item[1]))


def write_files(comparison: Comparison, plan: Plan, home: Path) -> Path:
    """Write compare.csv and compare.html, and return the path of the page."""
    write_page(home / "compare.csv", comparison_csv(comparison))
    write_page(home / "compare.html", comparison_page(comparison, plan))
    return home / "compare.html"


def comparison_page(comparison: Comparison, plan: Plan) -> str:
    """One HTML file without scripts that loads nothing from the network."""
    header, *lines = method_lines(comparison)
    trials, hours = plan.settings.get("trials"), plan.settings.get("train_hours")
    budget = [text.count(trials, "trial")] if trials else []
    budget += [f"{hours:g} h of training"] if hours else []
    return render_page(
        "compare.html",
        tag=plan.tag,
        metric=text.line(comparison.metric),
        budget=" or ".join(budget),
        complete=sum(cell.complete for cell in comparison.cells),
        cells=[(c, text.number(c.final, c.self_reported), _counts(c.sources)) for c in comparison.cells],
        charts=[curves(comparison, *size) for size in ((960, 400), (420, 330))],
        key=list(enumerate(comparison.methods)),
        header=header,
        lines=lines,
        tests=test_lines(comparison) if len(comparison.methods) > 1 else [],
        paper=paper_lines(comparison),
        paper_words=f"{paper.PAPER}: {paper.SETTING}. {paper.REMARK}",
        legend=text.LEGEND if comparison.self_reported else "",
    )
