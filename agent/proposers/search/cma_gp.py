"""CMA-ES whose samples are screened by a Gaussian process.

Pre-selection: of the admissible samples of an ask, the one with the largest expected improvement is evaluated. CMA-ES
still learns from every result, so an inaccurate process costs little.

Sources:
    Ulmer, Streichert and Zell (2003), Evolution strategies assisted by Gaussian processes with improved pre-selection
    criterion, CEC 2003. Expected improvement: Jones, Schonlau and Welch (1998), eq. 15.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from agent.proposers.search.cma import CmaEs
from agent.proposers.search.surrogate import FIRST, Surrogate
from agent.space.space import Params, SearchSpace


class CmaGp(CmaEs):
    """The source of a suggestion is ``gp`` if the process chose it, ``cma`` before the 25th success."""

    def __init__(self, space: SearchSpace, seed: int = 0, baseline: Params | None = None) -> None:
        super().__init__(space, seed, baseline)
        self.surrogate = Surrogate(self)

    def choose(self, fresh: Sequence[Params]) -> tuple[int, str]:
        if len(self.successes) < FIRST or len(fresh) < 2:
            return super().choose(fresh)
        score = self.surrogate.outlook(fresh).log_improvement()
        score[~self.admissible([self.space.to_unit(params) for params in fresh])] = -np.inf
        return int(np.argmax(score)), "gp"
