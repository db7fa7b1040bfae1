"""What a comparison found: best values per cell, ranks, paired tests. Pure functions of the cells' ledgers.

A cell is one session: a method with a seed. Its best value after k trials is the best measured one among the baseline
and the first k trials: what a person would take home, as in arXiv 2603.24647, and optimistic by the noise of the best.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from statistics import fmean, stdev

from agent.ledger.state import State
from agent.types import Goal

SEEDS_TO_TEST = 6  # with fewer, no outcome of the signed-rank test is below 0.05


@dataclass(frozen=True)
class Cell:
    """A session. ``best[k]`` is the best value after k trials, None while nothing was measured."""

    method: str
    seed: int
    tag: str
    complete: bool = False
    best: tuple[float | None, ...] = ()
    failed: int = 0  # trials without a value, whatever the reason
    statuses: Mapping[str, int] = field(default_factory=dict)  # of the trials without a value
    sources: Mapping[str, int] = field(default_factory=dict)
    training_seconds: float = 0.0
    self_reported: bool = False

    @property
    def trials(self) -> int:
        return max(len(self.best) - 1, 0)

    @property
    def final(self) -> float | None:
        return self.best[-1] if self.best else None


def cell_of(method: str, seed: int, tag: str, state: State, complete: bool) -> Cell:
    """A cell by its ledger."""
    goal = state.session.goal
    better = min if goal == "minimize" else max
    values = [r.verdict.value if r.verdict and r.status == "ok" else None for r in state.finished]
    best: list[float | None] = []
    if state.baseline_runs:
        verdict = state.baseline_record.verdict
        best.append(verdict.value if verdict else None)
        for value in values:
            known = [v for v in (best[-1], value) if v is not None]
            best.append(better(known) if known else None)
    lost = [r.status for r, value in zip(state.finished, values, strict=True) if value is None]
    runs = [run for found in state.runs.values() for run in found if run.role != "test"]
    return Cell(
        method,
        seed,
        tag,
        complete,
        tuple(best),
        len(lost),
        dict(Counter(lost)),
        dict(Counter(r.proposal.source for r in state.finished)),
        sum(run.seconds.get("training", 0.0) for run in runs),
        state.session.self_reported,
    )


@dataclass(frozen=True)
class Row:
    """A method over its complete cells. Values and ranks are None where there are too few of them."""

    method: str
    seeds: int
    mean: float | None
    sd: float | None
    rank: float | None  # mean over the seeds that every method has; 1 is best
    failed_share: float | None
    trials: int
    sources: Mapping[str, int]
    training_seconds: float


@dataclass(frozen=True)
class Test:
    """Two methods, seed by seed. ``difference`` is one minus other; ``p`` is None where ``note`` says why."""

    one: str
    other: str
    seeds: int
    difference: float | None
    p: float | None
    note: str = ""
    p_holm: float | None = None  # for all tests of the comparison together (Holm 1979)


@dataclass(frozen=True)
class Contrast:
    metric: str
    goal: Goal
    methods: tuple[str, ...]
    cells: tuple[Cell, ...]

    def finals(self, method: str) -> dict[int, float]:
        """Best value by seed, of the complete cells."""
        mine = (c for c in self.cells if c.method == method and c.complete)
        return {c.seed: c.final for c in mine if c.final is not None}

    @property
    def complete(self) -> bool:
        return all(cell.complete for cell in self.cells)


def rows(contrast: Contrast) -> list[Row]:
    """A row for each method, the best mean first; methods without a complete cell last."""
    ranks = mean_ranks(contrast)
    found = []
    for method in contrast.methods:
        values = list(contrast.finals(method).values())
        cells = [c for c in contrast.cells if c.method == method and c.complete]
        trials = sum(c.trials for c in cells)
        sources: Counter[str] = Counter()
        for cell in cells:
            sources.update(cell.sources)
        found.append(
            Row(
                method,
                len(cells),
                fmean(values) if values else None,
                stdev(values) if len(values) > 1 else None,
                ranks.get(method),
                sum(c.failed for c in cells) / trials if trials else None,
                trials,
                dict(sources),
                sum(c.training_seconds for c in cells),
            )
        )
    sign = 1 if contrast.goal == "minimize" else -1
    return sorted(found, key=lambda row: math.inf if row.mean is None else sign * row.mean)


def mean_ranks(contrast: Contrast) -> dict[str, float]:
    """Rank by best value within each seed that every method has, averaged; ties share their ranks."""
    finals = {method: contrast.finals(method) for method in contrast.methods}
    seeds = sorted(set.intersection(*(set(values) for values in finals.values()))) if finals else []
    if not seeds:
        return {}
    sign = 1 if contrast.goal == "minimize" else -1

    def rank(method: str, seed: int) -> float:
        mine = sign * finals[method][seed]
        others = [sign * values[seed] for name, values in finals.items() if name != method]
        return 1 + sum(o < mine for o in others) + 0.5 * sum(o == mine for o in others)

    return {method: fmean(rank(method, seed) for seed in seeds) for method in contrast.methods}


def pair_tests(contrast: Contrast) -> list[Test]:
    """Wilcoxon's signed-rank test (1945) for each pair of methods, two-sided, paired by seed."""
    found = [_test(contrast, one, other) for one, other in combinations(contrast.methods, 2)]
    order = sorted((t.p, k) for k, t in enumerate(found) if t.p is not None)
    corrected, least = dict[int, float](), 0.0
    for place, (p, k) in enumerate(order):
        least = max(least, min(1.0, p * (len(order) - place)))
        corrected[k] = least
    return [Test(t.one, t.other, t.seeds, t.difference, t.p, t.note, corrected.get(k)) for k, t in enumerate(found)]


def _test(contrast: Contrast, one: str, other: str) -> Test:
    a, b = contrast.finals(one), contrast.finals(other)
    seeds = sorted(set(a) & set(b))
    differences = [a[seed] - b[seed] for seed in seeds]
    mean = fmean(differences) if differences else None
    if len(seeds) < SEEDS_TO_TEST:
        return Test(one, other, len(seeds), mean, None, f"too few seeds: {len(seeds)} of {SEEDS_TO_TEST}")
    if not any(differences):
        return Test(one, other, len(seeds), mean, None, "no difference in any seed")
    from scipy.stats import wilcoxon

    return Test(one, other, len(seeds), mean, float(wilcoxon(differences).pvalue))


def band(cells: Sequence[Cell], trials: int) -> list[tuple[int, float, float, float]]:
    """(trial, mean, mean − sd, mean + sd) of the best value so far over cells, where every one of them has a value."""
    points = []
    for k in range(trials + 1):
        values = [cell.best[k] for cell in cells if k < len(cell.best)]
        known = [v for v in values if v is not None]
        if known and len(known) == len(cells):
            sd = stdev(known) if len(known) > 1 else 0.0
            points.append((k, fmean(known), fmean(known) - sd, fmean(known) + sd))
    return points
