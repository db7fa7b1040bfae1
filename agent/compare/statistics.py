"""Statistics of a comparison: best values, ranks and paired tests. Pure functions of the sessions' ledgers.

The best value after k trials is the best measured one among the baseline and the first k trials, as in
arXiv 2603.24647. It is optimistic, because the minimum of noisy values is biased.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from statistics import fmean, stdev

from agent.ledger.state import State
from agent.types import Goal, minimised, on_validation

SEEDS_TO_TEST = 6  # with fewer pairs, no signed-rank test can have p < 0.05


@dataclass(frozen=True)
class Cell:
    """The session of one method and one seed."""

    method: str
    seed: int
    tag: str
    complete: bool = False
    best: tuple[float | None, ...] = ()  # best value after k trials; None until one is measured
    statuses: Mapping[str, int] = field(default_factory=dict)  # of the trials without a value
    sources: Mapping[str, int] = field(default_factory=dict)  # trials by origin of the proposal
    training_seconds: float = 0.0
    self_reported: bool = False

    @property
    def trials(self) -> int:
        return max(len(self.best) - 1, 0)

    @property
    def failed(self) -> int:
        """Trials without a value."""
        return sum(self.statuses.values())

    @property
    def final(self) -> float | None:
        return self.best[-1] if self.best else None


@dataclass(frozen=True)
class Comparison:
    """The sessions of a comparison, complete or not."""

    metric: str
    goal: Goal
    methods: tuple[str, ...]
    cells: tuple[Cell, ...]

    @property
    def complete(self) -> bool:
        return all(cell.complete for cell in self.cells)

    @property
    def self_reported(self) -> bool:
        return any(cell.self_reported for cell in self.cells)

    def complete_cells(self, method: str) -> list[Cell]:
        return [cell for cell in self.cells if cell.method == method and cell.complete]

    def finals(self, method: str) -> dict[int, float]:
        """Best value by seed, of the complete sessions."""
        return {cell.seed: cell.final for cell in self.complete_cells(method) if cell.final is not None}


@dataclass(frozen=True)
class Row:
    """One method over its complete sessions. Numbers are None if there are too few sessions."""

    method: str
    seeds: int
    mean: float | None  # of the best values
    sd: float | None
    rank: float | None  # mean over the seeds that every method has; 1 is best
    failed_share: float | None
    trials: int
    sources: Mapping[str, int]
    training_seconds: float


@dataclass(frozen=True)
class Test:
    """Two methods compared seed by seed."""

    one: str
    other: str
    seeds: int
    difference: float | None  # mean of one minus other
    p: float | None  # two-sided; None for the reason in ``note``
    note: str = ""
    p_holm: float | None = None  # corrected for all tests of the comparison


def cell_of(method: str, seed: int, tag: str, state: State, complete: bool) -> Cell:
    """Summarise the ledger of a session."""
    better = max if state.session.goal == "maximize" else min
    values = [r.verdict.value if r.verdict and r.status == "ok" else None for r in state.finished]
    baseline = state.baseline_record.verdict
    best: list[float | None] = []
    for value in [baseline.value if baseline else None, *values] if state.baseline_runs else []:
        best.append(better((known for known in (*best[-1:], value) if known is not None), default=None))
    failed = (r.status for r, value in zip(state.finished, values, strict=True) if value is None)
    lost = Counter(status for status in failed if status != "stopped")
    sources = Counter(r.proposal.source for r in state.finished)
    training = sum(run.seconds.get("training", 0.0) for runs in state.runs.values() for run in on_validation(runs))
    return Cell(
        method, seed, tag, complete, tuple(best), dict(lost), dict(sources), training, state.session.self_reported
    )


def rows(comparison: Comparison) -> list[Row]:
    """One row per method, the best mean first; methods without a complete session last."""
    ranks = mean_ranks(comparison)
    found = [_row(method, comparison, ranks.get(method)) for method in comparison.methods]
    return sorted(found, key=lambda row: math.inf if row.mean is None else minimised(row.mean, comparison.goal))


def _row(method: str, comparison: Comparison, rank: float | None) -> Row:
    values = list(comparison.finals(method).values())
    cells = comparison.complete_cells(method)
    trials = sum(cell.trials for cell in cells)
    sources = sum((Counter(cell.sources) for cell in cells), Counter[str]())
    mean, sd = fmean(values) if values else None, stdev(values) if len(values) > 1 else None
    share = sum(cell.failed for cell in cells) / trials if trials else None
    seconds = sum(cell.training_seconds for cell in cells)
    return Row(method, len(cells), mean, sd, rank, share, trials, dict(sources), seconds)


def mean_ranks(comparison: Comparison) -> dict[str, float]:
    """Rank by best value within each seed that every method has, averaged over seeds; ties share their rank."""
    finals = {method: comparison.finals(method) for method in comparison.methods}
    seeds = set.intersection(*(set(values) for values in finals.values())) if finals else set()

    def rank(method: str, seed: int) -> float:
        differences = [minimised(values[seed] - finals[method][seed], comparison.goal) for values in finals.values()]
        return 0.5 + sum(d < 0 for d in differences) + 0.5 * sum(d == 0 for d in differences)

    return {method: fmean(rank(method, seed) for seed in seeds) for method in comparison.methods} if seeds else {}


def pair_tests(comparison: Comparison) -> list[Test]:
    """Paired signed-rank test for each pair of methods, with corrected p values.

    Source: Wilcoxon 1945; correction: Holm 1979.
    """
    found = [_test(comparison, one, other) for one, other in combinations(comparison.methods, 2)]
    order = sorted((test.p, k) for k, test in enumerate(found) if test.p is not None)
    least = 0.0
    for place, (p, k) in enumerate(order):
        least = max(least, min(1.0, p * (len(order) - place)))
        found[k] = replace(found[k], p_holm=least)
    return found


def _test(comparison: Comparison, one: str, other: str) -> Test:
    a, b = comparison.finals(one), comparison.finals(other)
    differences = [a[seed] - b[seed] for seed in sorted(a.keys() & b.keys())]
    count, mean = len(differences), fmean(differences) if differences else None
    if count < SEEDS_TO_TEST:
        return Test(one, other, count, mean, None, f"too few seeds: {count} of {SEEDS_TO_TEST}")
    if not any(differences):
        return Test(one, other, count, mean, None, "no difference in any seed")
    from scipy.stats import wilcoxon

    return Test(one, other, count, mean, float(wilcoxon(differences).pvalue))


def band(cells: Sequence[Cell]) -> list[tuple[int, float, float]]:
    """Trial, mean and standard deviation of the best value so far, over the trials that all cells have values for."""
    points = []
    for k in range(min((len(cell.best) for cell in cells), default=0)):
        values = [value for cell in cells if (value := cell.best[k]) is not None]
        if len(values) == len(cells):
            points.append((k, fmean(values), stdev(values) if len(values) > 1 else 0.0))
    return points
