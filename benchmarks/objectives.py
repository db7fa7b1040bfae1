"""Synthetic training runs over the fourteen hyperparameters of the Centaur paper.

The objective is a quadratic bowl in the unit cube with noise: few parameters matter much, some interact, one category
is best. A run that needs too much memory fails, and high learning rates diverge. The optimum of ``near`` is close to
the defaults, that of ``far`` is distant, and ``rugged`` is ``near`` with ripples. ``scaling`` is no bowl: a scaling law
of size and tokens for a fixed time, with learning rates whose best values depend on batch and width, and which cost
more above than below. Each seed is another instance.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from agent.space.space import SearchSpace
from agent.types import Param, Value

NOISE = 0.0005
FLOOR = 0.97
MEMORY_GB = 76.0
KINDS = ("near", "far", "rugged", "scaling")
_DISTANCE = {"near": 0.12, "far": 0.3, "rugged": 0.12, "scaling": 0.12}  # sd of the optimum from the defaults


def paper_space() -> SearchSpace:
    """The fourteen hyperparameters of arXiv 2603.24647, with their bounds."""
    return SearchSpace(
        [
            Param("DEPTH", "int", 8, 4, 24),
            Param("ASPECT_RATIO", "int", 64, 32, 128),
            Param("HEAD_DIM", "int", 128, 64, 256, log=True, power_of_two=True),
            Param("DEVICE_BATCH_SIZE", "int", 128, 32, 256, log=True, power_of_two=True),
            Param("TOTAL_BATCH_SIZE", "int", 2**19, 2**16, 2**21, log=True, power_of_two=True),
            Param("EMBEDDING_LR", "float", 0.6, 0.01, 2.0, log=True),
            Param("UNEMBEDDING_LR", "float", 0.004, 0.0005, 0.05, log=True),
            Param("MATRIX_LR", "float", 0.04, 0.005, 0.2, log=True),
            Param("SCALAR_LR", "float", 0.5, 0.05, 2.0, log=True),
            Param("WEIGHT_DECAY", "float", 0.2, 0.0, 0.5),
            Param("WARMUP_RATIO", "float", 0.0, 0.0, 0.3),
            Param("WARMDOWN_RATIO", "float", 0.5, 0.1, 0.8),
            Param("FINAL_LR_FRAC", "float", 0.0, 0.0, 0.2),
            Param("WINDOW_PATTERN", "categorical", "SSSL", choices=("SSSL", "SSLL", "SLSL", "LLLL", "SSSS", "LSSL")),
        ],
        ["TOTAL_BATCH_SIZE >= DEVICE_BATCH_SIZE * 2048"],
    )


@dataclass(frozen=True)
class Outcome:
    """One trial: ``value`` is the observation, ``true`` the same without noise; both are None for a failure."""

    value: float | None
    true: float | None
    status: str
    memory_gb: float | None


class Objective:
    """One instance of a kind. The noise of trial k depends on (seed, k) only, so methods can be compared in pairs."""

    def __init__(self, space: SearchSpace, kind: str, seed: int) -> None:
        self.space, self.kind, self.seed = space, kind, seed
        random = np.random.default_rng([KINDS.index(kind), seed])
        home = space.to_unit(space.defaults)
        d = space.dimensions
        self.optimum = np.clip(home + _DISTANCE[kind] * random.standard_normal(d), 0.03, 0.97)
        self._weights = 0.2 * np.exp(random.normal(-1.6, 1.0, d))
        self._pull = random.normal(0.0, 1.0, (3, d)) * (random.random((3, d)) < 0.25)  # three interacting directions
        self._ripples = random.uniform(0, 2 * np.pi, d)
        self._categories = {
            i: 0.006
            * np.sort(random.random(len(space.params[i].choices)))[random.permutation(len(space.params[i].choices))]
            for i in space.categorical
        }

    def true(self, params: Mapping[str, Value]) -> float:
        """The value without noise, also where a run fails."""
        if self.kind == "scaling":
            return self._scaling_law(params)
        x = self.space.to_unit(params)
        numeric = [i for i in range(len(x)) if i not in self._categories]
        off = (x - self.optimum)[numeric]
        bowl = float(self._weights[numeric] @ off**2) + 0.05 * float(np.sum((self._pull[:, numeric] @ off) ** 2))
        value = FLOOR + 0.08 * float(np.tanh(bowl / 0.08))  # saturates far away
        if self.kind == "rugged":
            value += 0.0004 * float(np.sum(1 - np.cos(14 * np.pi * off + self._ripples[numeric])))
            value -= 0.0004 * float(np.sum(1 - np.cos(self._ripples[numeric])))
        for i, penalties in self._categories.items():
            p = self.space.params[i]
            value += float(penalties[p.choices.index(params[p.name])])
        return value

    def _scaling_law(self, params: Mapping[str, Value]) -> float:
        """Loss after 300 s on a device of 990 TFLOP/s; the optimum of an instance shifts the best rates."""
        p = {name: float(value) for name, value in params.items() if name != "WINDOW_PATTERN"}
        shift = dict(zip(self.space.names, self.optimum - self.space.to_unit(self.space.defaults), strict=True))
        depth, width, batch = p["DEPTH"], p["DEPTH"] * p["ASPECT_RATIO"], p["TOTAL_BATCH_SIZE"]
        window = 2048 - 256 * str(params["WINDOW_PATTERN"]).count("S")
        flops = 72 * depth * width**2 + 12 * depth * width * window
        used = 0.5 * p["DEVICE_BATCH_SIZE"] / (p["DEVICE_BATCH_SIZE"] + 16) * width / (width + 192)
        tokens = 300 * 9.9e14 * used * p["HEAD_DIM"] / (p["HEAD_DIM"] + 24) / flops
        loss = 0.78 + 0.10 * (depth * width**2 / 2.1e6) ** -0.35 + 0.09 * (tokens / 4e8) ** -0.35
        loss += 0.008 * (batch / tokens * 800) ** 0.8 + 0.002 * (2048 - window) / 1024
        loss += 0.003 * abs(math.log2(p["ASPECT_RATIO"] / 64) - 4 * shift["ASPECT_RATIO"]) ** 1.5
        scale = 0.5 * math.log2(batch / 2**19) - 0.5 * math.log2(width / 512)
        rates = {"MATRIX_LR": 0.003, "EMBEDDING_LR": 0.0012, "UNEMBEDDING_LR": 0.0012, "SCALAR_LR": 0.0005}
        defaults = self.space.defaults
        for name, weight in rates.items():
            off = math.log2(p[name] / float(defaults[name])) - 6 * shift[name] - scale
            loss += weight * (off**2 if off < 0 else math.expm1(off) * off)
        decay = math.log2((p["WEIGHT_DECAY"] + 0.02) * p["MATRIX_LR"] / 0.0088) - 6 * shift["WEIGHT_DECAY"]
        loss += 0.002 * (abs(decay) - 0.5 if abs(decay) > 1 else decay**2 / 2)
        loss += 0.04 * (p["WARMDOWN_RATIO"] - 0.55 - shift["WARMDOWN_RATIO"]) ** 2
        loss += 0.012 * abs(p["WARMUP_RATIO"] - max(shift["WARMUP_RATIO"], 0.0))
        return float(loss + 0.02 * p["FINAL_LR_FRAC"])

    def memory(self, params: Mapping[str, Value]) -> float:
        """Peak memory in GB, for weights and activations. The defaults need 45."""
        depth, rows = float(params["DEPTH"]) / 8, float(params["DEVICE_BATCH_SIZE"]) / 128
        width = depth * float(params["ASPECT_RATIO"]) / 64
        return 1.0 + 4.0 * depth * width * width + 40.0 * rows * math.pow(depth, 0.7) * math.pow(width, 0.6)

    def run(self, params: Mapping[str, Value], trial: int) -> Outcome:
        memory = self.memory(params)
        if memory > MEMORY_GB:
            return Outcome(None, None, "oom", MEMORY_GB)
        heat = float(params["MATRIX_LR"]) / 0.04 * math.sqrt(float(params["DEPTH"]) / 8)
        heat *= (1 + float(params["EMBEDDING_LR"])) / 1.6 * (0.7 if float(params["WARMUP_RATIO"]) > 0.02 else 1.0)
        if heat > 3.0:
            return Outcome(None, None, "diverged", memory)
        true = self.true(params)
        noise = NOISE * float(np.random.default_rng([7, self.seed, trial]).standard_normal())
        return Outcome(true + noise, true, "ok", memory)
