"""CMA-ES with a small initial step at the configuration that is known to work.

The evolution strategy is ``cmaes.CMA`` over the numeric parameters in the unit cube. A generation consists of all
reported points. Late samples and points from elsewhere are injected: clipped to the plausible Mahalanobis distance
first. Each categorical parameter has a distribution that moves towards the choices of the better half. A failure ranks
behind every success of its generation, and behind failures nearer to the best point. Samples that are likely to fail
are drawn again.

Sources:
    CMA-ES: Hansen (2016), The CMA Evolution Strategy: A Tutorial, arXiv 1604.00772. Clipped injection: Hansen (2011),
    Injecting external solutions into CMA-ES, arXiv 1110.4181, eq. 4. Categories: Baluja (1994), Population-based
    incremental learning, CMU-CS-94-163.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from cmaes import CMA
from numpy.typing import NDArray

from agent.proposers.search.base import Method, Observation, Suggestion
from agent.proposers.search.failure_model import FailureModel
from agent.space.space import Key, Params, SearchSpace, Unit
from agent.types import Value

Points = NDArray[np.float64]  # [count, dimensions]

SIGMA = 0.10  # initial step size, in sides of the cube: the best of 0.10, 0.17 and 0.25 in docs/decisions/search.md
CANDIDATES = 64  # samples per ask; plain CMA-ES takes the first admissible one


class Gaussian(CMA):  # type: ignore[misc]
    """``cmaes.CMA`` with access to its distribution, and samples from the caller's generator."""

    @property
    def step(self) -> float:
        """Step size σ, in sides of the cube."""
        return float(self._sigma)

    @property
    def covariance(self) -> Points:
        """C [d, d], without the step size."""
        return np.asarray((self._C + self._C.T) / 2)

    @property
    def recombination(self) -> NDArray[np.float64]:
        """Recombination weights [population // 2] of the better half; their sum is 1."""
        return np.asarray(self._weights[: self._mu])

    def _factor(self) -> Points:
        """L with L Lᵀ = σ² C. Cholesky has no free signs, unlike eigenvectors: all libraries agree on the result."""
        c = self.covariance
        floor = 1e-12 * float(np.trace(c)) / len(c)
        values, vectors = np.linalg.eigh(c)
        if values[0] <= floor:
            c = (vectors * np.maximum(values, floor)) @ vectors.T
        return np.asarray(self.step * np.linalg.cholesky(c))

    def sample(self, random: np.random.Generator, count: int) -> Points:
        """Samples [count, d] in the unit cube; coordinates outside are reflected at its border."""
        return reflected(self.mean + random.standard_normal((count, len(self.mean))) @ self._factor().T)

    def clip_injected(self, x: Unit) -> Unit:
        """``x`` [d] moved towards the mean to Mahalanobis distance √d + 2d / (d + 2) at most (Hansen 2011, eq. 4)."""
        d = len(self.mean)
        length = float(np.linalg.norm(np.linalg.solve(self._factor(), x - self.mean)))
        limit = math.sqrt(d) + 2 * d / (d + 2)
        return x if length <= limit else np.asarray(self.mean + (x - self.mean) * (limit / length))


def reflected(x: Points) -> Points:
    """``x`` with coordinates outside the unit cube reflected at its border."""
    folded = np.abs(x) % 2.0
    return np.asarray(np.where(folded > 1.0, 2.0 - folded, folded))


class Categories:
    """A categorical distribution per categorical parameter, moved by rank (population-based incremental learning)."""

    START = 0.5  # initial probability of the baseline's choice
    FLOOR = 0.2  # probability that the choices of a parameter share equally: none reaches 0
    RATE = 0.3  # learning rate

    def __init__(self, counts: Sequence[int], baseline: Sequence[int]) -> None:
        self.probabilities = [np.full(n, (1 - self.START) / (n - 1)) for n in counts]
        for p, index in zip(self.probabilities, baseline, strict=True):
            p[index] = self.START

    def sample(self, random: np.random.Generator, count: int) -> NDArray[np.int64]:
        """Choice indices [count, parameters]."""
        draws = random.random((count, len(self.probabilities)))
        columns = [np.searchsorted(np.cumsum(p)[:-1], draws[:, j], "right") for j, p in enumerate(self.probabilities)]
        return np.stack(columns, axis=1)

    def learn(self, ranked: NDArray[np.int64], weights: NDArray[np.float64]) -> None:
        """Move towards ``ranked`` [population, parameters], best first, with the recombination ``weights``."""
        for j, p in enumerate(self.probabilities):
            credit = np.bincount(ranked[: len(weights), j], weights=weights, minlength=len(p))
            moved = (1 - self.RATE) * p + self.RATE * credit
            self.probabilities[j] = (1 - self.FLOOR) * moved / moved.sum() + self.FLOOR / len(p)


class CmaEs(Method):
    """Samples that are likely to fail are drawn again."""

    finalists = CANDIDATES  # new points of an ask that are compared as they would run

    def __init__(self, space: SearchSpace, seed: int = 0, baseline: Params | None = None) -> None:
        super().__init__(space, seed, baseline)
        self.home = space.to_unit(self.baseline)
        self._categorical = list(space.categorical)
        self.numeric = [i for i in range(space.dimensions) if i not in self._categorical]
        self.population = 4 + math.floor(3 * math.log(space.dimensions))
        self.gaussian = (
            Gaussian(self.home[self.numeric], SIGMA, seed=0, population_size=self.population) if self.numeric else None
        )
        self._counts = np.array([len(space.params[i].choices) for i in self._categorical], dtype=np.int64)
        self.categories = Categories(self._counts.tolist(), self._indices(self.home).tolist())
        self.generation = 0
        self._samples: dict[Key, tuple[Unit, int]] = {}  # open samples before rounding, and their generation
        self._batch: list[tuple[Observation, Unit]] = []  # the present generation
        self._failures: tuple[int, FailureModel] | None = None  # number of observations, and their model

    def candidates(self, ask: int) -> Points:
        """Samples [CANDIDATES, dimensions] of the present distribution, the same for the same ``ask``."""
        random = self.stream(ask)
        points = np.empty((CANDIDATES, self.space.dimensions))
        if self.gaussian is not None:
            points[:, self.numeric] = self.gaussian.sample(random, CANDIDATES)
        if self._categorical:
            points[:, self._categorical] = (self.categories.sample(random, CANDIDATES) + 0.5) / self._counts
        return points

    def options(self, ask: int) -> Points:
        """The points [m, dimensions] of which one is evaluated, in order: the first new ones compete."""
        return self.candidates(ask)

    def choose(self, fresh: Sequence[Params]) -> tuple[int, str]:
        """Index of the candidate to evaluate, and its source. All of ``fresh`` are new and different."""
        return int(np.argmax(self.admissible([self.space.to_unit(params) for params in fresh]))), "cma"

    def admissible(self, points: Sequence[Unit]) -> NDArray[np.bool_]:
        """Mask [m] of the ``points`` [m, dimensions] that are likely enough to succeed."""
        failures, best = self.failures(), self.best
        success = failures.success_probability([*points, self.home if best is None else best.x])
        return failures.admissible(success[:-1], known=float(success[-1]))

    def failures(self) -> FailureModel:
        """The model of all failures so far."""
        if self._failures is None or self._failures[0] != len(self.observations):
            self._failures = len(self.observations), FailureModel(self.space, self.observations, self.home)
        return self._failures[1]

    def figures(self) -> dict[str, float]:
        """Generation, step size, and standard deviations along the longest and shortest axis, in sides of the cube."""
        if self.gaussian is None:
            return {}
        step = self.gaussian.step
        axes = step * np.sqrt(np.maximum(np.linalg.eigvalsh(self.gaussian.covariance), 0.0))
        found = {"step": step, "longest": axes[-1], "shortest": axes[0]}
        return {"generation": float(self.generation), **{name: float(f"{x:.6g}") for name, x in found.items()}}

    def propose(self, ask: int) -> Suggestion:
        fresh: dict[Key, dict[str, Value]] = {}
        for x in self.options(ask):
            params = self.space.from_unit(x)
            key = self.space.key(params)
            if key not in self.seen:
                fresh.setdefault(key, params)
            if len(fresh) == self.finalists:
                break
        if not fresh:
            return Suggestion(self.unseen(lambda: self.baseline, ask, tries=0), "cma")
        found = list(fresh.values())
        index, source = self.choose(found)
        return Suggestion(found[index], source)

    def asked(self, suggestion: Suggestion, ask: int) -> None:
        """Find the sample behind the suggestion. The samples of an ask can be drawn again, so none is stored."""
        points, key = self.candidates(ask), self.space.key(suggestion.params)
        distances = np.sum((points - self.space.to_unit(suggestion.params)) ** 2, axis=1)
        nearest = points[np.argsort(distances, kind="stable")]
        sample = next((x for x in nearest if self.space.key(self.space.from_unit(x)) == key), None)
        if sample is not None:
            self._samples[key] = sample, self.generation

    def learn(self, observation: Observation, suggestion: Suggestion | None) -> None:
        x, generation = self._samples.pop(observation.key, (observation.x, -1))
        if generation != self.generation and self.gaussian is not None:
            x = x.copy()
            x[self.numeric] = self.gaussian.clip_injected(x[self.numeric])
        self._batch.append((observation, x))
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

    def _ranked(self) -> list[tuple[Observation, Unit]]:
        """The generation, best first. CMA-ES only uses ranks, so values need no scaling."""
        home = self.home if self.best is None else self.best.x

        def rank(member: tuple[Observation, Unit]) -> tuple[bool, float]:
            value = member[0].value
            return value is None, float(np.linalg.norm(member[0].x - home)) if value is None else value

        return sorted(self._batch, key=rank)

    def _indices(self, x: Unit) -> NDArray[np.int64]:
        """Choice indices [parameters] of a point of the cube."""
        return np.minimum((x[self._categorical] * self._counts).astype(np.int64), self._counts - 1)
