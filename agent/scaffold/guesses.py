"""What a script's constants and paths suggest for target.toml: hyperparameters, seed and data folders."""

from __future__ import annotations

import ast
import contextlib
import re
from collections.abc import Iterable
from itertools import takewhile

from agent.errors import UsageError
from agent.space.block import Entry, read_block
from agent.types import Value

_FIXED = re.compile(  # a search must not change these
    r"SEED|BUDGET|TIME|SECOND|MINUTE|HOUR|LOG(?!IT)|PRINT|EVAL|VAL|TEST|SAVE|CHECKPOINT|CKPT|DIR|PATH|FILE|URL|DEVICE$"
    r"|PORT$|WORKERS|VERSION|DEBUG|VERBOSE|VOCAB|(ITERS|STEPS|EPOCHS)$|CLASSES|FEATURES|SAMPLES|ROWS|CACHE|RESUME|WANDB"
    r"|FOLDS|SPLIT|COMPILE|THREADS|DTYPE|RANK$|WORLD|FLOPS|RANDOM_STATE|JOBS|GPUS|LABELS|INPUT|OUTPUT"
)
_USUAL = re.compile(  # names that count in a script whose constants are in small letters
    r"(learning_rate|lr|min_lr|n_?layers?|n_?heads?|n_?embd|d_model|hidden\w*|width|depth|dropout|weight_decay|beta_?[12]"
    r"|batch_size|block_size|grad_clip|warmup\w*|momentum|alpha|gamma|max_depth|n_estimators|gradient_accumulation_steps)"
)
_SIZE = re.compile(r"BATCH|WIDTH|DIM|SIZE|EMBD|HIDDEN|D_MODEL|LENGTH|SEQ")
_SEED_NUMBER = re.compile(  # SEED = 42, random_state=42, torch.manual_seed(42 + rank), PRNGKey(0)
    r"(?i)(\b(?:\w+_)?(?:seed|random_state)(?:\s*:\s*int)?\s*=\s*"
    r"|(?:seed|manual_seed_all|seed_everything|default_rng|RandomState|PRNGKey)\(\s*)(\d+)\b"
)
# join(expanduser('~'), '.cache', 'x'); Path.home() / 'x'; '~/x'
_HOME = re.compile(r"(?:'~'\)*|\.home\(\))((?:(?:, | / )'[\w./-]+'\)*)+)|'(~/[\w./-]+?)/?'")
_OUTPUTS = re.compile(r"(^|/)(out|outputs?|logs?|wandb|runs|checkpoints?|results?)(/|$)")


def hyperparameters_of(source: str) -> dict[Entry, list[str]]:
    """The TOML lines of each ``[[hyperparameters]]``: upper-case constants, or else constants with usual names."""
    names = list(dict.fromkeys(re.findall(r"^([^\W\d]\w*)\s*(?::[^=\n]+)?=(?!=)", source, re.M)))
    chosen = [n for n in names if n.isupper() and len(n) > 1] or [n for n in names if _USUAL.fullmatch(n.lower())]
    found = {}
    for name in chosen:
        with contextlib.suppress(UsageError):  # computed, or assigned twice: a search cannot change it
            entry = read_block(source, names=[name])[name]
            if not _FIXED.search(name.upper()) and (keys := bounds(name, entry.value)) is not None:
                found[entry] = keys
    return found


def bounds(name: str, value: Value) -> list[str] | None:
    """Bounds around the present value as TOML; [] for a boolean; None if the value suggests no scale."""
    name = name.upper()
    if isinstance(value, bool):
        return []
    if isinstance(value, str) or value < 0 or (value == 0 and "DROPOUT" not in name):
        return None
    if "DROPOUT" in name and value <= 0.5:
        return _keys(0.0, 0.5)
    if isinstance(value, int):
        if value >= 16 and value & (value - 1) == 0 and _SIZE.search(name):
            return _keys(value // 4, value * 4, "power_of_two = true")
        return _keys(max(1, value // 2), max(4, value * 2), "log = true" if value >= 100 else "")
    if value <= 1 and re.search(r"RATIO|FRAC|DROPOUT|PROB|PERCENT|SHARE|SAMPLE", name):
        return _keys(0.0, 1.0)
    if value < 1 and re.search(r"MOMENTUM|BETA|EMA|GAMMA", name):
        return _keys(max(0.0, round(1 - (1 - value) * 4, 10)), round(1 - (1 - value) / 4, 10))
    factor = 10 if value < 0.01 or re.search(r"LR|RATE", name) else 4
    return _keys(float(f"{value / factor:.3g}"), float(f"{value * factor:.3g}"), "log = true")


def _keys(low: float, high: float, more: str = "") -> list[str]:
    return [f"low = {low!r}", f"high = {high!r}", *filter(None, [more])]


def seed_edits(source: str) -> list[str]:
    """Edits that make a script with a fixed seed read OVERNIGHT_SEED: ``12: SEED = int(…)``. Splits stay fixed."""
    found = []
    for number, line in enumerate(source.splitlines(), start=1):
        code = line.partition("#")[0]
        edited = _SEED_NUMBER.sub(r'\1int(os.environ.get("OVERNIGHT_SEED", "\2"))', code)
        if edited != code and not re.search("split|fold", code, re.IGNORECASE):
            found.append(f"{number}: {edited.strip()}")
    return found


def mounts_of(tree: ast.Module, ignored: Iterable[str]) -> list[str]:
    """Folders that a script names: below the home directory, or with files that git ignores."""
    source = ast.unparse(tree)
    found = {whole or "/".join(["~", *re.findall(r"[\w.-]+", joined)]) for joined, whole in _HOME.findall(source)}
    found -= {"~/.cache", "~/.config", "~/.local"}
    for name in ignored:
        named = takewhile(lambda part: re.search(rf"['/]{re.escape(part)}['/]", source), name.split("/")[:-1])
        if (folder := "/".join(named)) and not _OUTPUTS.search(folder):
            found.add(folder)
    return sorted(p for p in found if ".." not in p and not any(p.startswith(f"{other}/") for other in found))
