"""CMA-ES from the configuration that is known to work, with a small step.

The evolution strategy is ``cmaes.CMA`` (Hansen, *The CMA Evolution Strategy: A Tutorial*, arXiv 1604.00772) over the
numeric parameters in the unit cube. Its generations are made of whatever was told: points that it drew, late ones, and
points from elsewhere, which are first drawn in to a plausible distance (Hansen, *Injecting external solutions into
CMA-ES*, arXiv 1110.4181). Categories have a distribution of their own that moves towards the choices of the better
half, with the same weights. A failure ranks behind every success of its generation, behind failures nearer to the best.
A sample that is likely to fail, by what failed before, is drawn again (resampling, as for constraints).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from cmaes import CMA
from numpy.typing import NDArray

from agent.proposers.protocol import Suggestion
from agent.proposers.search.base import Method, Told
from agent.proposers.search.failure_model import Failures
from agent.space.space import Key, SearchSpace, Unit
from agent.types import Value

Points = NDArray[np.float64]  # [count, dimensions]

SIGMA = 0.10  # of the cube's side: the best of 0.10, 0.17 and 0.25 in the project's measurements
CANDIDATES = 64  # drawn for each ask, of which plain CMA-ES takes the first that is new and may work
MAY_WORK = 0.3  # probability of not failing that a sample needs at least
STEP = 0.5  # log-odds that it needs more after each sample that failed


class Gaussian(CMA):  # type: ignore[misc]
    """``cmaes.CMA``, and what its state says. Samples come from a generator of the caller's."""

    @property
    def step(self) -> float:
        return float(self._sigma)

    @property
    def covariance(self) -> Points:
        """[d, d], without the step size."""
        return np.asarray((self._C + self._C.T) / 2)

    @property
    def recombination(self) -> NDArray[np.float64]:
        """Weights [population // 2] of the better half; they add up to 1."""
        return np.asarray(self._weights[: self._mu])

    def _factor(self) -> Points:
        """L with L Lᵀ = σ² C. Unlike eigenvectors it has no sign to choose, so libraries agree on it."""
        c = self.covariance
        floor = 1e-12 * float(np.trace(c)) / len(c)
        values, vectors = np.linalg.eigh(c)
        if values[0] <= floor:
            c = (vectors * np.maximum(values, floor)) @ vectors.T
        return np.asarray(self.step * np.linalg.cholesky(c))

    def sample(self, random: np.random.Generator, count: int) -> Points:
        """[count, d] inside the unit cube; what falls outside is mirrored at its border."""
        x = self.mean + random.standard_normal((count, len(self.mean))) @ self._factor().T
        folded = np.abs(x) % 2.0
        return np.asarray(np.where(folded > 1.0, 2.0 - folded, folded))

    def drawn_in(self, x: Unit) -> Unit:
        """``x``, moved towards the mean until it is as near as a sample may be (arXiv 1110.4181, eq. 4)."""
        d = len(self.mean)
        length = float(np.linalg.norm(np.linalg.solve(self._factor(), x - self.mean)))
        limit = math.sqrt(d) + 2 * d / (d + 2)
        return x if length <= limit else np.asarray(self.mean + (x - self.mean) * (limit / length))


class Categories:
    """A distribution for each categorical parameter, moved by rank (population-based incremental learning)."""

    START = 0.5  # probability of the baseline's choice
    FLOOR = 0.2  # shared by the choices of a parameter, so that none ever dies
    RATE = 0.3

    def __init__(self, counts: Sequence[int], baseline: Sequence[int]) -> None:
        self.probabilities = [np.full(n, (1 - self.START) / (n - 1)) for n in counts]
        for p, index in zip(self.probabilities, baseline, strict=True):
            p[index] = self.START

    def sample(self, random: np.random.Generator, count: int) -> NDArray[np.int64]:
        """Indices [count, parameters]."""
        draws = random.random((count, len(self.probabilities)))
        columns = [np.searchsorted(np.cumsum(p)[:-1], draws[:, j], "right") for j, p in enumerate(self.probabilities)]
        return np.stack(columns, axis=1) if columns else np.zeros((count, 0), dtype=np.int64)

    def learn(self, ranked: NDArray[np.int64], weights: NDArray[np.float64]) -> None:
        """``ranked`` [population, parameters], best first."""
        for j, p in enumerate(self.probabilities):
            credit = np.bincount(ranked[: len(weights), j], weights=weights, minlength=len(p))
            moved = (1 - self.RATE) * p + self.RATE * credit
            self.probabilities[j] = (1 - self.FLOOR) * moved / moved.sum() + self.FLOOR / len(p)


@dataclass(frozen=True)
class Drawn:
    """A point as it was drawn, and in which generation."""

    x: Unit
    generation: int


class CmaEs(Method):
    """CMA-ES that draws again what would fail. ``choose`` is where a better judge of candidates comes in."""

    def __init__(self, space: SearchSpace, seed: int = 0, baseline: Mapping[str, Value] | None = None) -> None:
        super().__init__(space, seed, baseline)
        home = space.to_unit(self.baseline)
        self._categorical = list(space.categorical)
        self.numeric = [i for i in range(space.dimensions) if i not in self._categorical]
        self.population = 4 + math.floor(3 * math.log(space.dimensions))
        self.gaussian = (
            Gaussian(home[self.numeric], SIGMA, seed=0, population_size=self.population) if self.numeric else None
        )
        self._counts = np.array([len(space.params[i].choices) for i in self._categorical], dtype=np.int64)
        self.categories = Categories(self._counts.tolist(), self._indices(home).tolist())
        self.generation = 0
        self._drawn: dict[Key, Drawn] = {}
        self._batch: list[tuple[Told, Unit]] = []

    def candidates(self, ask: int) -> Points:
        """[CANDIDATES, dimensions] points of the cube from the present distribution."""
        random = self.stream(ask)
        points = np.empty((CANDIDATES, self.space.dimensions))
        if self.gaussian is not None:
            points[:, self.numeric] = self.gaussian.sample(random, CANDIDATES)
        if self._categorical:
            points[:, self._categorical] = (self.categories.sample(random, CANDIDATES) + 0.5) / self._counts
        return points

    def choose(self, fresh: Sequence[Mapping[str, Value]]) -> tuple[int, str]:
        """Index of the candidate to try, and who chose it. All of ``fresh`` are new and different."""
        points = [self.space.to_unit(params) for params in fresh]
        failures = self.failures()
        return int(np.argmax(failures.allowed(failures.chance(points), MAY_WORK, STEP))), "cma"

    def failures(self) -> Failures:
        return Failures(self.space, self.told, self.space.to_unit(self.baseline))

    def figures(self) -> dict[str, float]:
        """Step size, and the standard deviations along the longest and shortest axis; sides of the unit cube."""
        if self.gaussian is None:
            return {}
        step = self.gaussian.step
        axes = step * np.sqrt(np.maximum(np.linalg.eigvalsh(self.gaussian.covariance), 0.0))
        found = {"step": step, "longest": axes[-1], "shortest": axes[0]}
        return {"generation": float(self.generation), **{name: float(f"{x:.6g}") for name, x in found.items()}}

    def propose(self, ask: int) -> Suggestion:
        fresh: dict[Key, dict[str, Value]] = {}
        for x in self.candidates(ask):
            params = self.space.from_unit(x)
            key = self.space.key(params)
            if key not in self.seen:
                fresh.setdefault(key, params)
        if not fresh:
            return Suggestion(self.unseen(lambda: self.baseline, ask, tries=0), "cma")
        options = list(fresh.values())
        index, source = self.choose(options)
        return Suggestion(options[index], source)

    def asked(self, suggestion: Suggestion, ask: int) -> None:
        """Find the point as it was drawn. The k-th candidates can be drawn again, so nothing is stored."""
        points = self.candidates(ask)
        key = self.space.key(suggestion.params)
        order = np.argsort(np.sum((points - self.space.to_unit(suggestion.params)) ** 2, axis=1), kind="stable")
        for i in order:
            if self.space.key(self.space.from_unit(points[i])) == key:
                self._drawn[key] = Drawn(points[i], self.generation)
                return

    def learn(self, told: Told) -> None:
        drawn = self._drawn.pop(told.key, None)
        if drawn is not None and drawn.generation == self.generation:
            x = drawn.x
        else:
            x = (told.x if drawn is None else drawn.x).copy()
            if self.gaussian is not None:
                x[self.numeric] = self.gaussian.drawn_in(x[self.numeric])
        self._batch.append((told, x))
        if len(self._batch) == self.population:
            self._update()

    def _update(self) -> None:
        ranked = self._ranked()
        if self.gaussian is not None:
            self.gaussian.tell([(x[self.numeric], float(rank)) for rank, (_, x) in enumerate(ranked)])
            weights = self.gaussian.recombination
        else:
            weights = np.log(self.population // 2 + 0.5) - np.log(np.arange(1, self.population // 2 + 1))
            weights = weights / weights.sum()
        if self._categorical:
            self.categories.learn(np.stack([self._indices(x) for _, x in ranked]), weights)
        self._batch = []
        self.generation += 1

    def _ranked(self) -> list[tuple[Told, Unit]]:
        """The generation, best first. Only ranks reach the strategy, so values need no scale."""
        best = self.best
        home = self.space.to_unit(self.baseline) if best is None else best.x
        distances = [float(np.linalg.norm(told.x - home)) for told, _ in self._batch]
        order = sorted(
            range(len(self._batch)),
            key=lambda i: (
                self._batch[i][0].value is None,
                distances[i] if self._batch[i][0].value is None else self._batch[i][0].value,
            ),
        )
        return [self._batch[i] for i in order]

    def _indices(self, x: Unit) -> NDArray[np.int64]:
        """The choices [parameters] at a point of the cube."""
        return np.minimum((x[self._categorical] * self._counts).astype(np.int64), self._counts - 1)
