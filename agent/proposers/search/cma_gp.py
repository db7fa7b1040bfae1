"""Samples of CMA-ES and variations of the best point, screened by a Gaussian process.

Pre-selection: of the admissible points of an ask, the one with the largest expected improvement is evaluated. The
variations change few parameters or all, and those with a long length scale the most. They take part in every second
ask: where the process is wrong about the surroundings of the best point, the samples of CMA-ES still leave it. CMA-ES
learns from every result, so an inaccurate process costs little.

Sources:
    Ulmer, Streichert and Zell (2003), Evolution strategies assisted by Gaussian processes with improved pre-selection
    criterion, CEC 2003. Expected improvement: Jones, Schonlau and Welch (1998), eq. 15. Variations of few coordinates:
    Regis and Shoemaker (2013), Combining radial basis function surrogates and dynamic coordinate search. Steps by
    length scale: Eriksson et al. (2019), Scalable global optimization via local Bayesian optimization (TuRBO), arXiv
    1910.01739.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from agent.proposers.search.base import successes
from agent.proposers.search.cma import CmaEs, Points, reflected
from agent.proposers.search.surrogate import FIRST, Surrogate
from agent.space.space import Params, SearchSpace, Unit

VARIATIONS = 256  # in every second ask
CHANGED = 0.25  # share of the parameters that half of the variations change; the others change all
STEPS = (0.03, 0.25)  # least and largest standard deviation of a variation, in sides of the cube
STRETCH = (0.3, 4.0)  # bounds of the factor on a parameter's steps: its length scale over their geometric mean
SWITCHED = 0.1  # share of the variations with another choice of a categorical parameter


class CmaGp(CmaEs):
    """The source of a suggestion is ``gp`` if the process chose it, ``cma`` before the 15th success."""

    screen = True  # whether the process takes part
    finalists = 24

    def __init__(self, space: SearchSpace, seed: int = 0, baseline: Params | None = None) -> None:
        super().__init__(space, seed, baseline)
        self.surrogate = Surrogate(self)

    @property
    def screens(self) -> bool:
        return self.screen and len(successes(self.observations)) >= FIRST

    def options(self, ask: int) -> Points:
        points = super().options(ask)
        if not self.screens:
            return points
        if ask % 2:
            outlook = self.surrogate.outlook(list(points))
            points = np.vstack([points, self.variations(ask, outlook.top, outlook.process.kernel.scales)])
        return points[np.argsort(-self._promise(list(points)), kind="stable")]

    def variations(self, ask: int, centre: Unit, scales: Unit) -> Points:
        """Points [VARIATIONS, dimensions] of the cube around ``centre``, with steps by the length ``scales``."""
        random, shape = self.stream(ask, "variations"), (VARIATIONS, self.space.dimensions)
        share = np.where(random.random((VARIATIONS, 1)) < 0.5, CHANGED, 1.0)
        changed = random.random(shape) < share
        changed[np.arange(VARIATIONS), random.integers(shape[1], size=VARIATIONS)] = True
        step = np.exp(random.uniform(math.log(STEPS[0]), math.log(STEPS[1]), (VARIATIONS, 1)))
        step = step * np.clip(scales / np.exp(np.mean(np.log(scales))), *STRETCH)
        points = reflected(centre + changed * step * random.standard_normal(shape))
        for i in self.space.categorical:
            count = len(self.space.params[i].choices)
            other = (random.integers(count, size=VARIATIONS) + 0.5) / count
            points[:, i] = np.where(random.random(VARIATIONS) < SWITCHED, other, centre[i])
        return points

    def choose(self, fresh: Sequence[Params]) -> tuple[int, str]:
        if not self.screens or len(fresh) < 2:
            return super().choose(fresh)
        return int(np.argmax(self._promise([self.space.to_unit(params) for params in fresh]))), "gp"

    def _promise(self, points: Sequence[Unit]) -> NDArray[np.float64]:
        """log of the expected improvement [m] at ``points`` [m, dimensions]; -inf where a run is likely to fail."""
        score = self.surrogate.outlook(points).log_improvement()
        return np.where(self.admissible(points), score, -math.inf)
