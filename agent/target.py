"""target.toml: the program to train, its score, its training budget and its resource limits."""

from __future__ import annotations

import dataclasses
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from agent.errors import UsageError, check_key
from agent.toml import Table, read_toml
from agent.trust import check_trusted
from agent.types import Goal

BudgetKind = Literal["seconds", "steps", "tokens"]

LEAVING_SECONDS = 5.0  # allowed beyond the budget, for saving the model and exiting

TARGET_KEYS = {  # table: its keys; None: another module checks the keys
    "target": ("name", "editable", "train", "score", "pattern", "metric", "goal", "mounts", "smoke", "python",
               "seed_env", "seed_arg"),
    "budget": ("seconds", "steps", "tokens", "wall_seconds", "startup_seconds", "score_seconds"),
    "limits": ("memory_gb", "vram_gb", "disk_gb", "processes"),
    "search": ("constraints",),
    "hyperparameters": None,  # agent.space
    "data": None,  # the target's own preparation
    "run": None,  # agent.settings
}  # fmt: skip
_UNITS: dict[str, tuple[BudgetKind, float]] = {
    "s": ("seconds", 1), "seconds": ("seconds", 1), "m": ("seconds", 60), "min": ("seconds", 60),
    "h": ("seconds", 3600), "steps": ("steps", 1), "tokens": ("tokens", 1),
}  # fmt: skip


@dataclass(frozen=True)
class Budget:
    """Training of one run. The host enforces seconds; the harness counts steps and tokens."""

    kind: BudgetKind
    amount: float
    wall_seconds: float  # bound on the training phase for every kind of budget
    startup_seconds: float = 120.0
    score_seconds: float = 300.0

    def __str__(self) -> str:
        amount = int(self.amount) if self.amount == int(self.amount) else self.amount
        return f"{amount}s" if self.kind == "seconds" else f"{amount} {self.kind}"

    @property
    def encoded(self) -> str:
        """The form that the harness reads: ``seconds:300``."""
        return f"{self.kind}:{self.amount:g}" if self.kind == "seconds" else f"{self.kind}:{int(self.amount)}"

    @property
    def allowed_seconds(self) -> float:
        """A run that trains longer is over budget: 2 % and ``LEAVING_SECONDS`` are tolerated."""
        return self.wall_seconds * 1.02 + LEAVING_SECONDS

    @property
    def kill_seconds(self) -> float:
        """Age of the training phase at which the host kills it."""
        return self.allowed_seconds * 1.1 + LEAVING_SECONDS


@dataclass(frozen=True)
class Target:
    """A checked target.toml."""

    folder: Path
    name: str
    editable: tuple[str, ...]
    train: tuple[str, ...]
    score: Literal["trusted", "stdout"]
    metric: str
    goal: Goal
    budget: Budget
    pattern: str = ""
    memory_gb: float = 8.0
    vram_gb: float | None = None
    disk_gb: float = 4.0
    processes: int = 512
    data: Mapping[str, Any] = field(default_factory=dict)
    mounts: tuple[str, ...] = ()  # host directories that a foreign target reads, mounted read-only
    has_block: bool = False  # whether there are [[hyperparameters]]
    smoke: tuple[str, ...] = ()  # command of the smoke test of a target that prints its own value; (): none
    python: str = ""  # interpreter of trials; "": Overnight's own
    seed_env: str = ""  # environment variable that receives the seed of a run, besides OVERNIGHT_SEED
    seed_arg: str = ""  # argument that receives it: ``--seed``, or ``--seed=``
    trusted: str = ""  # name of an installed trusted target; "" is the built-in one

    @property
    def path(self) -> str:
        """The file that the agent edits, relative to the target's folder."""
        return self.editable[0]


def load_target(folder: Path) -> tuple[Target, dict[str, Any]]:
    """Read ``folder/target.toml``.

    Returns:
        The target, and the ``[run]`` table of settings.

    Raises:
        UsageError: see ``read_tables``; or a value is wrong, or the file sets what only a trusted file may set.
    """
    tables = read_tables(folder)
    target = _target(folder, folder / "target.toml", tables)
    check_trusted(folder, tables)
    return target, dict(tables.get("run", {}))


def read_tables(folder: Path) -> dict[str, Any]:
    """The tables of ``folder/target.toml``.

    Raises:
        UsageError: the file is missing or does not parse, or a table or key is unknown.
    """
    path = folder / "target.toml"
    if not path.is_file():
        raise UsageError(
            f"{folder} has no target.toml. `overnight init DIR` makes a target; --target names a folder that has one."
        )
    tables = read_toml(path)
    for name, content in tables.items():
        check_key(name, TARGET_KEYS, str(path), "table")
        if not isinstance(content, dict) and name != "hyperparameters":
            raise UsageError(f"{path}: [{name}] must be a table.")
        if (keys := TARGET_KEYS[name]) is not None:
            for key in content:
                check_key(key, keys, f"{path}, [{name}]")
    return tables


def _target(folder: Path, path: Path, tables: Mapping[str, Any]) -> Target:
    where = f"{path}, [target]"
    main, limits = Table(where, tables.get("target", {})), Table(f"{path}, [limits]", tables.get("limits", {}))
    pattern = main.string("pattern", "")
    named = re.fullmatch(r"trusted:([\w.-]+)", str(main.values.get("score")))
    usual = "stdout" if "pattern" in main.values else "trusted"
    score: Literal["trusted", "stdout"] = "trusted" if named else main.one_of("score", ("trusted", "stdout"), usual)
    if score == "stdout":
        _check_pattern(pattern, where)
    elif "smoke" in main.values:
        raise UsageError(
            f'{where}: smoke needs score = "stdout". A trusted target makes the smoke test in its harness.'
        )
    return Target(
        folder=folder,
        name=main.string("name", folder.resolve().name),
        editable=_editable(main),
        train=main.strings("train"),
        score=score,
        metric=_metric(main),
        goal=main.one_of("goal", ("minimize", "maximize"), "minimize"),
        budget=_budget(Table(f"{path}, [budget]", tables.get("budget", {}))),
        pattern=pattern,
        memory_gb=limits.positive("memory_gb", 8.0),
        vram_gb=limits.positive("vram_gb", 0.0) or None,
        disk_gb=limits.positive("disk_gb", 4.0),
        processes=int(limits.positive("processes", 512)),
        data=dict(tables.get("data", {})),
        mounts=main.strings("mounts", ()),
        smoke=main.strings("smoke", ()),
        has_block=bool(tables.get("hyperparameters")),
        trusted=named[1] if named else "",
        python=_python(folder, main.string("python", "")),
        **_seed(main, score),
    )


def _python(folder: Path, written: str) -> str:
    """An absolute path, with its links: an environment is found by the link that was started."""
    return os.path.abspath(folder / Path(written).expanduser()) if written else ""  # noqa: PTH100


def _seed(main: Table, score: str) -> dict[str, str]:
    found = {key: main.string(key, "") for key in ("seed_env", "seed_arg")}
    if score == "trusted" and any(found.values()):
        raise UsageError(f'{main.where}: seed_env and seed_arg belong to score = "stdout". Remove them.')
    if found["seed_env"] and not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", found["seed_env"]):
        raise UsageError(f"{main.where}, seed_env: {found['seed_env']!r} is no name of an environment variable.")
    return found


def _check_pattern(pattern: str, where: str) -> None:
    if not pattern:
        raise UsageError(f"{where}: score = \"stdout\" needs a pattern, such as '^val_bpb:\\s*(\\S+)'.")
    try:
        groups = re.compile(pattern).groups
    except re.error as error:
        raise UsageError(f"{where}, pattern: {error}.") from None
    if groups != 1:
        raise UsageError(f"{where}, pattern: needs exactly one (group), which holds the number.")


def _metric(main: Table) -> str:
    name = main.string("metric", "val_bpb")
    if not name.strip() or not name.isprintable():
        raise UsageError(f"{main.where}: metric = {name!r} must be one line of text, such as 'val_bpb'.")
    return name


def _editable(main: Table) -> tuple[str, ...]:
    names = main.strings("editable")
    for name in names:
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise UsageError(f"{main.where}, editable: {name!r} is outside the target.")
    if len(names) != 1:
        raise UsageError(f"{main.where}, editable: name exactly one file.")
    return names


def _budget(table: Table) -> Budget:
    kinds = [kind for kind in get_args(BudgetKind) if kind in table.values]
    if len(kinds) != 1:
        found = ", ".join(kinds) or "none"
        raise UsageError(f"{table.where}: set exactly one of seconds, steps and tokens (found: {found}).")
    kind, amount = kinds[0], table.positive(kinds[0])
    if kind == "seconds" and "wall_seconds" in table.values:
        raise UsageError(f"{table.where}: wall_seconds bounds a budget of steps or tokens. Remove it beside seconds.")
    wall = amount if kind == "seconds" else table.positive("wall_seconds", 3600.0)
    return Budget(kind, amount, wall, table.positive("startup_seconds", 120.0), table.positive("score_seconds", 300.0))


def parse_budget(text: str, before: Budget) -> Budget:
    """The budget that ``--budget`` names.

    Args:
        text: ``300s``, ``5m``, ``200steps``, ``1e6tokens``.
        before: the budget of target.toml, whose bounds on the other phases stay.

    Raises:
        UsageError: no positive finite amount with a unit, or less than one step or token.
    """
    match = re.fullmatch(rf"\s*([0-9.]+(?:e[0-9]+)?)\s*({'|'.join(_UNITS)})\s*", text)
    try:
        amount = float(match[1]) if match else 0.0
    except ValueError:
        amount = 0.0
    if match is None or not 0 < amount < math.inf:
        raise UsageError(f"--budget {text}: write a positive amount with a unit: 300s, 5m, 200steps, 1e6tokens.")
    kind, factor = _UNITS[match[2]]
    if kind == "seconds":
        seconds = amount * factor
        return dataclasses.replace(before, kind=kind, amount=seconds, wall_seconds=seconds)
    if amount < 1:
        raise UsageError(f"--budget {text}: must be at least one {kind[:-1]}.")
    wall = before.wall_seconds if before.kind != "seconds" else max(3600.0, before.wall_seconds)
    return dataclasses.replace(before, kind=kind, amount=float(int(amount)), wall_seconds=wall)
