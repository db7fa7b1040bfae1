"""Published figures of arXiv 2603.24647 (Ferreira, Wobbe, Krishnakumar, Hutter, Zela), shown beside a comparison.

They are val_bpb of another target on one H200 with 24 hours of training per method. Only the order of the methods can
be compared with a comparison here, not the values.
"""

from __future__ import annotations

from dataclasses import dataclass

PAPER = "arXiv 2603.24647"
REPOSITORY = "the repository's figures of 2026-05"
UPDATE = "a later update with 8 seeds"
SETTING = "one H200, 24 h of training for each method, val_bpb of their target"
REMARK = "Version 1 of the paper has Centaur's 0.8B variant ahead of 27B."


@dataclass(frozen=True)
class Figure:
    """One published result."""

    method: str  # its name here
    theirs: str  # its name in the paper
    value: float
    failed: float | None  # share of trials
    version: str


FIGURES = (
    Figure("centaur", "Centaur, 27B model", 0.9763, 0.15, REPOSITORY),
    Figure("centaur", "Centaur, 0.8B model", 0.9766, 0.13, REPOSITORY),
    Figure("tpe", "TPE", 0.9768, 0.11, REPOSITORY),
    Figure("smac", "SMAC", 0.9778, 0.36, REPOSITORY),
    Figure("cma-es", "CMA-ES", 0.9785, 0.16, REPOSITORY),
    Figure("code", "code agent, 27B model", 0.9814, 0.12, REPOSITORY),
    Figure("code", "code agent, 0.8B model", 0.9910, None, REPOSITORY),
    Figure("llambo", "LLAMBO", 0.9862, 0.48, REPOSITORY),
    Figure("random", "random", 0.9873, 0.56, REPOSITORY),
    Figure("llambo-optuna", "LLAMBO in Optuna", 0.9882, 0.61, REPOSITORY),
    Figure("hparams", "model alone on 14 values", 0.9904, 0.01, REPOSITORY),
    Figure("tpe", "TPE", 0.9755, None, UPDATE),
    Figure("centaur", "Centaur, 27B model", 0.9772, None, UPDATE),
    Figure("cma-es", "CMA-ES", 0.9776, None, UPDATE),
)
