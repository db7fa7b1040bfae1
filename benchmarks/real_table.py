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
CAUTION = 0.01  # bits per byte: a paired scatter above it means that an edit draws other random numbers
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
    prior of w is N(slope · the smaller of two own gains, spread²), its two numbers chosen by marginal likelihood.
    """

    def __init__(self, rows: Sequence[Row]) -> None:
        baseline = {row.seed: row.value for row in rows if not row.keys}
        paired: dict[Keys, list[float]] = {}
        for row in rows:
            if row.keys and row.seed in baseline:
                paired.setdefault(row.keys, []).append(baseline[row.seed] - row.value)
        self.sd = stdev(baseline.values())
        self.recipes = sorted(keys[0] for keys in paired if len(keys) == 1)
        self.means = {keys: fmean(gains) for keys, gains in paired.items()}
        wide = [stdev(g) for g in paired.values() if len(g) > 1 and stdev(g) > CAUTION]
        self.wide = math.sqrt(fmean(s * s for s in wide))  # scatter of edits that draw other random numbers
        self.scatter = {keys: max(stdev(g) if len(g) > 1 else self.wide, 1e-5 * self.sd) for keys, g in paired.items()}
        self.counts = {keys: len(gains) for keys, gains in paired.items()}
        self.combinations = [keys for keys in paired if len(keys) > 1]
        self.slope, self.spread = self._best_prior()

    def error(self, keys: Keys) -> float:
        """Standard error of a measured gain; few runs that agree by chance do not make it small."""
        scatter = self.scatter[keys]
        loose = self.redraws(keys) if len(keys) == 1 else True
        return max(scatter, self.wide if loose else 0.0) / math.sqrt(self.counts[keys])

    def redraws(self, keys: Keys) -> bool:
        return any(self.scatter[key,] > CAUTION for key in keys)

    @cached_property
    def pairs(self) -> list[tuple[str, str]]:
        return [(a, b) for n, a in enumerate(self.recipes) for b in self.recipes[n + 1 :]]

    def _parts(self, slope: float, spread: float) -> tuple[Array, Array, Array, Array]:
        """Prior mean and variance of the pairs; residuals of the combinations, and the pairs that each one holds."""
        own = {key: self.means[key,] for key in self.recipes}
        mean = np.array([slope * max(0.0, min(own[a], own[b])) for a, b in self.pairs])
        variance = np.full(len(self.pairs), spread**2)
        held = np.array([[a in keys and b in keys for a, b in self.pairs] for keys in self.combinations], float)
        rest = np.array([self.means[keys] - sum(own[key] for key in keys) for keys in self.combinations])
        return mean, variance, rest - held @ mean, held

    def _noise(self) -> Array:
        """Covariance of the combinations' residuals: their own errors, and those of the recipes' gains."""
        holds = np.array([[key in keys for key in self.recipes] for keys in self.combinations], float)
        own = np.array([self.error((key,)) for key in self.recipes])
        return np.asarray((holds * own**2) @ holds.T + np.diag([self.error(keys) ** 2 for keys in self.combinations]))

    def _best_prior(self) -> tuple[float, float]:
        noise, best = self._noise(), (-math.inf, 0.0, 0.0)
        for slope in np.arange(-1.0, 0.55, 0.05):
            for spread in (0.0, *np.geomspace(0.002, 0.06, 12)):
                _, variance, rest, held = self._parts(float(slope), float(spread))
                covariance = noise + (held * variance) @ held.T
                sign, log = np.linalg.slogdet(covariance)
                assert sign > 0
                likelihood = -(log + rest @ np.linalg.solve(covariance, rest)) / 2
                best = max(best, (float(likelihood), float(slope), float(spread)))
        return best[1], best[2]

    def draw(self, random_: np.random.Generator) -> Truth:
        """A truth that fits the table: own gains and pairs drawn from their posterior."""
        own = {key: self.means[key,] + self.error((key,)) * random_.standard_normal() for key in self.recipes}
        mean, variance, _, held = self._parts(self.slope, self.spread)
        mean = np.array([self.slope * max(0.0, min(own[a], own[b])) for a, b in self.pairs])
        pair = mean + np.sqrt(variance) * random_.standard_normal(len(mean))
        errors = np.array([self.error(keys) for keys in self.combinations])
        target = np.array([self.means[keys] - sum(own[key] for key in keys) for keys in self.combinations])
        seen = target + errors * random_.standard_normal(len(errors)) - held @ pair  # conditioning by Matheron's rule
        covariance = (held * variance) @ held.T + np.diag(errors**2)
        pair = pair + variance * (held.T @ np.linalg.solve(covariance, seen))
        scatter = {key: self.scatter[key,] for key in self.recipes}
        wide = frozenset(key for key in self.recipes if self.redraws((key,)))
        return Truth(own, dict(zip(self.pairs, pair, strict=True)), scatter, wide, self.sd, self.wide)


@dataclass(frozen=True)
class Truth:
    """What edits are worth in one night, in bits per byte."""

    own: dict[str, float]
    pair: dict[tuple[str, str], float]
    scatter: dict[str, float]
    redraw: frozenset[str]  # recipes that draw other random numbers
    sd: float
    wide: float

    def gain(self, keys: Sequence[str]) -> float:
        chosen = sorted(keys)
        pairs = ((a, b) for n, a in enumerate(chosen) for b in chosen[n + 1 :])
        return sum(self.own[key] for key in chosen) + sum(self.pair[pair] for pair in pairs)


@dataclass
class Machine:
    """Makes runs: the noise is shared under one seed, except where an edit draws other random numbers."""

    truth: Truth
    seed: str
    runs: int = 0

    def run(self, keys: Keys, seed: int) -> float:
        self.runs += 1
        truth = self.truth
        drawn = ",".join(sorted(truth.redraw.intersection(keys)))
        own = truth.wide / math.sqrt(2)
        shared = math.sqrt(max(truth.sd**2 - own**2, 0.0))
        noise = shared * self._normal("data", seed) + own * self._normal(f"weights {drawn}", seed)
        noise += sum(truth.scatter[key] * self._normal(key, seed) for key in keys if key not in truth.redraw)
        return 3.0 - truth.gain(keys) + noise

    def _normal(self, what: str, seed: int) -> float:
        return random.Random(f"{self.seed} {what} {seed}").gauss(0, 1)


if __name__ == "__main__":
    pack(Path(sys.argv[1]))
