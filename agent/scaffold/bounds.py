"""Which constants of a script a search might change, and within which bounds: by name and value, guessed."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from agent.scaffold.source_scan import Constant

_NEVER = re.compile(
    r"SEED|BUDGET|TIME|SECOND|MINUTE|HOUR|LOG(?!IT)|PRINT|EVAL|VAL|TEST|SAVE|CHECKPOINT|CKPT|DIR|PATH|FILE|URL"
    r"|DEVICE$|PORT$|WORKERS|VERSION|DEBUG|VERBOSE|VOCAB|MAX_(ITERS|STEPS|EPOCHS)|(ITERS|STEPS|EPOCHS)$|CLASSES|FEATURES"
    r"|COLUMN|SAMPLES|ROWS|SHARD|DOWNLOAD|CACHE|RESUME|WANDB|PROJECT|FOLDS|SPLIT|COMPILE|THREADS|DTYPE|^(LOCAL_)?RANK$"
    r"|WORLD|FLOPS|PEAK|RANDOM_STATE|JOBS|GPUS|CORES|LABELS|INPUT|OUTPUT"
)
_USUAL = re.compile(  # of scripts that write their settings in small letters
    r"(learning_rate|lr|min_lr|n_?layers?|n_?heads?|n_?embd|d_model|hidden\w*|width|depth|dropout|weight_decay|beta_?[12]"
    r"|batch_size|block_size|grad_clip|warmup\w*|momentum|alpha|gamma|c|max_depth|n_estimators|gradient_accumulation_steps)"
)
_SHARE = re.compile(r"RATIO|FRAC|DROPOUT|PROB|PERCENT|SHARE|(SUB|COL)SAMPLE")
_NEAR_ONE = re.compile(r"MOMENTUM|BETA|EMA|GAMMA")


@dataclass(frozen=True)
class Guess:
    """One ``[[hyperparameters]]``: its keys as they are written. Booleans need none."""

    constant: Constant
    keys: tuple[tuple[str, str], ...]


def guess_hyperparameters(constants: Iterable[Constant]) -> tuple[list[Guess], list[str]]:
    """Upper-case constants with bounds, or the usual names where there is none; and names left out on purpose."""
    constants = list(constants)
    shouted = [c for c in constants if c.name.isupper() and len(c.name) > 1]
    chosen = shouted or [c for c in constants if _USUAL.fullmatch(c.name.lower())]
    found, left = [], []
    for constant in chosen:
        keys = None if _NEVER.search(constant.name.upper()) else bounds(constant)
        if keys is None:
            left.append(constant.name)
        else:
            found.append(Guess(constant, keys))
    return found, left


def bounds(constant: Constant) -> tuple[tuple[str, str], ...] | None:
    """Low, high and scale around the present value; None where the value says nothing of its scale."""
    name, value = constant.name.upper(), constant.value
    if isinstance(value, bool):
        return ()
    if isinstance(value, str) or value <= 0:
        return None
    if isinstance(value, int):
        return _whole(value)
    if value <= 1 and _SHARE.search(name):
        return _pair(0.0, 1.0)
    if value < 1 and _NEAR_ONE.search(name):
        return _pair(max(0.0, round(1 - (1 - value) * 4, 10)), round(1 - (1 - value) / 4, 10))
    factor = 10 if value < 0.01 or re.search(r"LR|RATE", name) else 4
    return (*_pair(float(f"{value / factor:.3g}"), float(f"{value * factor:.3g}")), ("log", "true"))


def _whole(value: int) -> tuple[tuple[str, str], ...]:
    if value >= 16 and value & (value - 1) == 0:
        return (*_pair(value // 4, value * 4), ("power_of_two", "true"))
    pair = _pair(max(1, value // 2), max(4, value * 2))
    return (*pair, ("log", "true")) if value >= 100 else pair


def _pair(low: float, high: float) -> tuple[tuple[str, str], ...]:
    return ("low", repr(low)), ("high", repr(high))


def guess_constraints(guesses: Iterable[Guess]) -> list[str]:
    """A width is a multiple of the number of heads, where both stand there."""
    names = {guess.constant.name.lower(): guess.constant for guess in guesses}
    pairs = [(w, h) for w in ("n_embd", "d_model", "width") for h in ("n_head", "n_heads", "num_heads")]
    return [
        f"{names[w].name} % {names[h].name} == 0"
        for w, h in pairs
        if w in names and h in names and int(names[w].value) % int(names[h].value) == 0
    ]
