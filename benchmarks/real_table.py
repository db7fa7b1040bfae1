"""The table of real edits, and the model of their values that benchmarks.night draws from.

benchmarks/real_edits.json: one run of preset demo a line, made by benchmarks.real_edits and packed by
``python -m benchmarks.real_table FILE.jsonl``: recipes in their order, index of the seed, value, losses at milestones.
"""

from __future__ import annotations

import json
import math
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean, stdev

import numpy as np
from numpy.typing import NDArray

from agent.judge.hopeless import Milestones

TABLE = Path(__file__).with_name("real_edits.json")
SCATTER = 0.01  # bits per byte: above it, paired differences scatter as unpaired ones do
OTHER_WEIGHTS = 5e-5  # difference of first losses above which the initial weights are taken to differ
FLOOR = 0.003  # least scatter of an edit, in standard deviations of a run
Keys = tuple[str, ...]
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Row:
    """One run of the table."""

    keys: Keys
    seed: int
    value: float
    losses: tuple[float, ...]  # at the milestones


def read_table(path: Path = TABLE) -> list[Row]:
    return [Row(tuple(keys), seed, value, tuple(losses)) for keys, seed, value, losses in json.loads(path.read_text())]


def pack(source: Path) -> None:
    """Write the compact table from the lines of benchmarks.real_edits."""
    found = []
    for line in source.read_text().splitlines():
        row = json.loads(line)
        curve = Milestones()
        for progress, loss in row["curve"]:
            curve.add(progress, loss)
        if row["value"] is not None:
            found.append([row["keys"], row["seed"], round(row["value"], 6), [round(x, 4) for x in curve.losses]])
    lines = ",\n".join(json.dumps(row, separators=(",", ":")) for row in found)
    TABLE.write_text(f"[\n{lines}\n]\n")


class Model:
    """Gains of sets of recipes, fitted to the table.

    gain(S) = sum of the recipes' own gains + sum over pairs of w. Own gains and w have a joint Gaussian posterior; the
    prior of w is N(slope · the smaller of two own gains, spread²); slope and spread are weighed by marginal likelihood.

    Runs of most recipes share the noise of a seed with the baseline: their gain is the mean paired difference. Others
    start from other weights, or diverge from the baseline's path: their gain is a difference of means.
    """

    def __init__(self, rows: Sequence[Row]) -> None:
        baseline = {row.seed: row for row in rows if not row.keys}
        values = [row.value for row in baseline.values()]
        self.sd, base = stdev(values), fmean(values)
        self.base_error = self.sd / math.sqrt(len(values))  # of every difference of means
        runs: dict[Keys, list[Row]] = {}
        for row in rows:
            if row.keys and row.seed in baseline:
                runs.setdefault(row.keys, []).append(row)
        self.recipes = sorted(keys[0] for keys in runs if len(keys) == 1)
        self.combinations = [keys for keys in runs if len(keys) > 1]
        paired = {keys: [baseline[row.seed].value - row.value for row in found] for keys, found in runs.items()}
        self.weights = frozenset(
            key
            for key in self.recipes
            if any(abs(row.losses[0] - baseline[row.seed].losses[0]) > OTHER_WEIGHTS for row in runs[key,])
        )
        scattered = {key for key in self.recipes if len(paired[key,]) > 1 and stdev(paired[key,]) > SCATTER}
        self.redraw = self.weights | scattered
        self.means, self.errors, self.scatter = dict[Keys, float](), dict[Keys, float](), dict[str, float]()
        for keys, found in runs.items():
            if self.redraw.isdisjoint(keys):
                spread = stdev(paired[keys]) if len(found) > 1 else 0.0
                spread = max(spread, FLOOR * self.sd)
                self.means[keys] = fmean(paired[keys])
                if len(keys) == 1:
                    self.scatter[keys[0]] = spread
            else:
                spread, self.means[keys] = self.sd, base - fmean(row.value for row in found)
            self.errors[keys] = spread / math.sqrt(len(found))
        self.priors = self._priors()

    @cached_property
    def pairs(self) -> list[tuple[str, str]]:
        return [(a, b) for n, a in enumerate(self.recipes) for b in self.recipes[n + 1 :]]

    def _parts(self) -> tuple[Array, Array, Array]:
        """Residuals of the combinations, the pairs that each holds, and the smaller own gain of each pair."""
        own = {key: self.means[key,] for key in self.recipes}
        held = np.array([[a in keys and b in keys for a, b in self.pairs] for keys in self.combinations], float)
        rest = np.array([self.means[keys] - sum(own[key] for key in keys) for keys in self.combinations])
        return rest, held, np.array([max(0.0, min(own[a], own[b])) for a, b in self.pairs])

    def _noise(self) -> Array:
        """Covariance of the combinations' residuals: their own errors, those of the recipes, and the baseline's."""
        holds = np.array([[key in keys for key in self.recipes] for keys in self.combinations], float)
        own = np.array([self.errors[key,] for key in self.recipes])
        counts = np.array([len(self.redraw.intersection(keys)) for keys in self.combinations])
        base = ((counts > 0) - counts) * self.base_error
        return np.asarray(
            (holds * own**2) @ holds.T
            + np.diag([self.errors[keys] ** 2 for keys in self.combinations])
            + np.outer(base, base)
        )

    def _priors(self) -> list[tuple[float, float, float]]:
        """Posterior weight, slope and spread of the prior of pairs, on a grid."""
        noise, (rest, held, smaller) = self._noise(), self._parts()
        found = []
        for spread in np.geomspace(0.0003, 0.03, 12):
            covariance = noise + spread**2 * held @ held.T
            log = np.linalg.slogdet(covariance)[1]
            for slope in np.arange(-1.5, 0.55, 0.1):
                left = rest - slope * held @ smaller
                found.append((-(log + left @ np.linalg.solve(covariance, left)) / 2, float(slope), float(spread)))
        top = max(found)[0]
        total = sum(math.exp(likelihood - top) for likelihood, _, _ in found)
        return [(math.exp(likelihood - top) / total, slope, spread) for likelihood, slope, spread in found]

    @property
    def interaction(self) -> tuple[float, float]:
        """Posterior means of slope and spread."""
        return sum(w * slope for w, slope, _ in self.priors), sum(w * spread for w, _, spread in self.priors)

    def draw(self, random_: np.random.Generator) -> Truth:
        """A truth that fits the table: own gains and pairs drawn from their posterior."""
        base = self.base_error * random_.standard_normal()
        noise = {keys: error * random_.standard_normal() for keys, error in self.errors.items()}
        found = {
            keys: mean + noise[keys] + (0.0 if self.redraw.isdisjoint(keys) else base)
            for keys, mean in self.means.items()
        }
        own = {key: found[key,] for key in self.recipes}
        _, held, _ = self._parts()
        _, slope, spread = self.priors[random_.choice(len(self.priors), p=[weight for weight, _, _ in self.priors])]
        smaller = np.array([max(0.0, min(own[a], own[b])) for a, b in self.pairs])
        pair = slope * smaller + spread * random_.standard_normal(len(smaller))
        # conditioning by Matheron's rule: a draw from the prior, corrected by what the combinations say
        rest = np.array([found[keys] - sum(own[key] for key in keys) for keys in self.combinations]) - held @ pair
        covariance = spread**2 * held @ held.T + np.diag([self.errors[keys] ** 2 for keys in self.combinations])
        pair = pair + spread**2 * held.T @ np.linalg.solve(covariance, rest)
        pairs = dict(zip(self.pairs, pair, strict=True))
        return Truth(own, pairs, self.scatter, self.redraw, self.weights, self.sd)


@dataclass(frozen=True)
class Truth:
    """What edits are worth in one night, in bits per byte."""

    own: dict[str, float]
    pair: dict[tuple[str, str], float]
    scatter: dict[str, float]  # of paired differences, by recipe that keeps the random numbers
    redraw: frozenset[str]  # recipes whose runs share no noise with the baseline's
    weights: frozenset[str]  # those of them whose initial weights differ
    sd: float

    def gain(self, keys: Sequence[str]) -> float:
        chosen = sorted(keys)
        pairs = ((a, b) for n, a in enumerate(chosen) for b in chosen[n + 1 :])
        return sum(self.own[key] for key in chosen) + sum(self.pair[pair] for pair in pairs)


@dataclass
class Machine:
    """Makes runs: commits share the noise of a seed unless they draw other random numbers."""

    truth: Truth
    seed: str
    runs: int = 0

    def initial_hash(self, keys: Keys, seed: int) -> str:
        return f"{hash((frozenset(keys) & self.truth.weights, seed)) & 0xFFFFFFFF:08x}"

    def run(self, keys: Keys, seed: int) -> float:
        self.runs += 1
        truth = self.truth
        drawn = ",".join(sorted(truth.redraw.intersection(keys)))
        noise = truth.sd * self._normal(f"seed {drawn}", seed)
        noise += sum(truth.scatter[key] * self._normal(key, seed) for key in keys if key not in truth.redraw)
        return 3.0 - truth.gain(keys) + noise

    def _normal(self, what: str, seed: int) -> float:
        return random.Random(f"{self.seed} {what} {seed}").gauss(0, 1)


if __name__ == "__main__":
    pack(Path(sys.argv[1]))
