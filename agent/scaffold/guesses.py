"""What a script's constants and paths suggest for target.toml: hyperparameters, time budget and data folders."""

from __future__ import annotations

import ast
import contextlib
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from agent.errors import UsageError
from agent.space.block import Entry, literal_value, read_block
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
_TIME = re.compile(
    r"(TIME|SECONDS?|MINUTES?|HOURS?)_?(BUDGET|LIMIT)|(BUDGET|MAX|LIMIT|TRAIN\w*)_(SECONDS?|MINUTES?|HOURS?)"
)
_SEED_OPTION = re.compile(r"""add_argument\(\s*["'](--[\w-]*seed)["']""")
_SEED_VARIABLE = re.compile(r"""(?:environ|getenv)(?:\.get)?[\[(]\s*["'](\w*SEED\w*)["']""")
_SEED_NUMBER = re.compile(  # SEED = 42, random_state=42, torch.manual_seed(42 + rank), PRNGKey(0)
    r"(\b(?:\w+_)?(?:seed|random_state)(?:\s*:\s*int)?\s*=\s*"
    r"|(?:seed|manual_seed_all|seed_everything|default_rng|RandomState|PRNGKey)\(\s*)(\d+)\b",
    re.IGNORECASE,
)
_OUTPUTS = re.compile(r"(^|/)(out|outputs?|logs?|wandb|runs|checkpoints?|results?)(/|$)")


def hyperparameters_of(source: str) -> dict[Entry, list[str]]:
    """The TOML lines of each ``[[hyperparameters]]``: upper-case constants, or else constants with usual names."""
    names = [name for name, _ in _constants(ast.parse(source))]
    chosen = [n for n in names if n.isupper() and len(n) > 1] or [n for n in names if _USUAL.fullmatch(n.lower())]
    found = {}
    for name in chosen:
        try:
            constant = read_block(source, names=[name])[name]
        except UsageError:  # computed, or assigned twice: a search cannot change it
            continue
        if not _FIXED.search(name.upper()) and (keys := bounds(name, constant.value)) is not None:
            found[constant] = keys
    return found


def _constants(tree: ast.Module) -> list[tuple[str, Value | None]]:
    nodes = [node for node in tree.body if isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value]
    pairs = [(node.targets[0] if isinstance(node, ast.Assign) else node.target, node.value) for node in nodes]
    found = {target.id: literal_value(value) for target, value in pairs if isinstance(target, ast.Name) and value}
    return list(found.items())


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
        return _keys(max(1, value // 2), max(4, value * 2), *(["log = true"] if value >= 100 else []))
    if value <= 1 and re.search(r"RATIO|FRAC|DROPOUT|PROB|PERCENT|SHARE|SAMPLE", name):
        return _keys(0.0, 1.0)
    if value < 1 and re.search(r"MOMENTUM|BETA|EMA|GAMMA", name):
        return _keys(max(0.0, round(1 - (1 - value) * 4, 10)), round(1 - (1 - value) / 4, 10))
    factor = 10 if value < 0.01 or re.search(r"LR|RATE", name) else 4
    return _keys(float(f"{value / factor:.3g}"), float(f"{value * factor:.3g}"), "log = true")


def _keys(low: float, high: float, *more: str) -> list[str]:
    return [f"low = {low!r}", f"high = {high!r}", *more]


def seed_key_of(source: str) -> str:
    """The line of target.toml that passes the seed on to a script with an option or a variable for it; "" without."""
    for key, sign in (("seed_arg", _SEED_OPTION), ("seed_env", _SEED_VARIABLE)):
        if found := sign.search(source):
            return f'{key} = "{found[1]}"'
    return ""


def seed_edits(source: str) -> list[str]:
    """Edits that make a script with a fixed seed read OVERNIGHT_SEED: ``12: SEED = int(…)``. Splits stay fixed."""
    found = []
    for number, line in enumerate(source.splitlines(), start=1):
        code = line.partition("#")[0]
        edited = _SEED_NUMBER.sub(r'\1int(os.environ.get("OVERNIGHT_SEED", "\2"))', code)
        if edited != code and not re.search("split|fold", code, re.IGNORECASE):
            found.append(f"{number}: {edited.strip()}")
    return found


def seconds_of(tree: ast.Module) -> tuple[float, str] | None:
    """Seconds for the whole process, from a constant such as TIME_BUDGET, and that constant as text."""
    for name, value in _constants(tree):
        unit = 3600 if "HOUR" in name.upper() else 60 if "MINUTE" in name.upper() else 1
        if _TIME.search(name.upper()) and isinstance(value, (int, float)) and value * unit > 1:
            return max(2 * value * unit, value * unit + 60), f"{name} = {value}"
    return None


def mounts_of(tree: ast.Module, ignored: Iterable[str]) -> list[str]:
    """Data folders that a script names: below the home directory, or ones that hold files ignored by git."""
    found: list[str] = []
    for path in sorted({path.rstrip("/") for path in _paths(tree)}, key=lambda path: (len(path), path)):
        home = re.fullmatch(r"~/(?!\.(cache|config|local)$)[^\0 ]+", path)
        inside = re.fullmatch(r"[\w-][\w./-]*", path) and any(name.startswith(f"{path}/") for name in ignored)
        inside = inside and not _OUTPUTS.search(path)
        if (home or inside) and ".." not in path and not any(f"{path}/".startswith(f"{m}/") for m in found):
            found.append(path)
    return found


def _paths(tree: ast.Module) -> Iterator[str]:
    """Every text that the source determines; ``~`` is the home directory."""
    single = [node for node in tree.body if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)]
    known = {ast.unparse(node.targets[0]): node.value for node in single}
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        text = _text(node, known) if isinstance(node, ast.expr) else None
        if text is not None:
            yield text
        else:
            waiting.extend(ast.iter_child_nodes(node))


def _text(node: ast.expr, known: Mapping[str, ast.expr], depth: int = 0) -> str | None:
    """The text of a literal, a joined path or the home directory; None if it depends on anything else."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else None
    if isinstance(node, ast.Name) and node.id in known and depth < 20:
        return _text(known[node.id], known, depth + 1)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
        arguments = [node.left, node.right]
    elif isinstance(node, ast.Call) and re.search(r"(^|\.)(join|expanduser|Path)$", ast.unparse(node.func)):
        arguments = node.args
    else:
        return "~" if ast.unparse(node).endswith("Path.home()") else None
    texts = [text for argument in arguments if (text := _text(argument, known, depth + 1)) is not None]
    return "/".join(texts) if texts and len(texts) == len(arguments) else None


def modules_of(script: Path) -> dict[Path, ast.Module]:
    """The modules beside ``script`` that it imports; those that do not parse are left out."""
    found = {}
    for node in ast.walk(ast.parse(script.read_bytes())):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
        for path in (script.parent / f"{name.replace('.', '/')}.py" for name in names):
            with contextlib.suppress(OSError, ValueError, SyntaxError):
                found[path] = ast.parse(path.read_bytes())
    return found
