"""target.toml: what is trained, how it is scored, and within which budget and limits."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from agent.errors import UsageError
from agent.toml import _known, _Taker, read_toml
from agent.types import Goal

BudgetKind = Literal["seconds", "steps", "tokens"]


LEAVING_SECONDS = 5.0  # that training may take beyond its budget: for saving the model, and for leaving


@dataclass(frozen=True)
class Budget:
    """How much training one run gets. Seconds are enforced from outside; steps and tokens the harness counts."""

    kind: BudgetKind
    amount: float
    wall_seconds: float  # the training phase may never take longer, whatever the kind
    startup_seconds: float = 120.0
    score_seconds: float = 300.0

    def __str__(self) -> str:
        amount = int(self.amount) if self.amount == int(self.amount) else self.amount
        return f"{amount}s" if self.kind == "seconds" else f"{amount} {self.kind}"

    @property
    def encoded(self) -> str:
        """What the harness reads: ``seconds:300``."""
        return f"{self.kind}:{self.amount:g}" if self.kind == "seconds" else f"{self.kind}:{int(self.amount)}"

    @property
    def allowed_seconds(self) -> float:
        """Training that ends later than this was over budget: ``LEAVING_SECONDS`` and 2 % are granted."""
        return self.wall_seconds * 1.02 + LEAVING_SECONDS

    @property
    def kill_seconds(self) -> float:
        """The training phase is killed at this age."""
        return self.allowed_seconds * 1.1 + LEAVING_SECONDS


@dataclass(frozen=True)
class Target:
    """A target.toml, checked."""

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
    has_block: bool = False
    trusted: str = ""  # name of an installed trusted target; "" is the built-in one

    @property
    def path(self) -> str:
        """The file that the agent edits."""
        return self.editable[0]


_TARGET_KEYS = {
    "target": ("name", "editable", "train", "score", "pattern", "metric", "goal", "mounts"),
    "budget": ("seconds", "steps", "tokens", "wall_seconds", "startup_seconds", "score_seconds"),
    "limits": ("memory_gb", "vram_gb", "disk_gb", "processes"),
    "search": ("constraints",),
    "hyperparameters": None,  # read by agent.space
    "data": None,  # read by the target's own preparation
    "run": None,  # settings
}


def load_target(folder: Path) -> tuple[Target, dict[str, Any]]:
    """Read ``folder/target.toml``; also its ``[run]`` table of settings.

    Raises:
        UsageError: the file is missing, does not parse, or a key is unknown, missing or wrong.
    """
    path = folder / "target.toml"
    if not path.is_file():
        raise UsageError(
            f"{folder} has no target.toml. `overnight init DIR` makes a target to start from; "
            f"--target names a folder that has one."
        )
    table = read_toml(path)
    for section, content in table.items():
        _known(section, _TARGET_KEYS, str(path), "table")
        keys = _TARGET_KEYS[section]
        if keys is not None:
            if not isinstance(content, dict):
                raise UsageError(f"{path}: [{section}] must be a table.")
            for key in content:
                _known(key, keys, f"{path}, [{section}]", "key")
    return _target(folder, path, table), dict(table.get("run", {}))


def _target(folder: Path, path: Path, table: Mapping[str, Any]) -> Target:
    head, limits = table.get("target", {}), table.get("limits", {})
    take = _Taker(f"{path}, [target]", head)
    editable = take.strings("editable")
    named = re.fullmatch(r"trusted:([\w.-]+)", str(head.get("score")))
    usual = "stdout" if "pattern" in head else "trusted"
    score = "trusted" if named else take.one_of("score", ("trusted", "stdout"), usual)
    pattern = take.string("pattern", "")
    if score == "stdout":
        if not pattern:
            raise UsageError(f"{path}, [target]: score = \"stdout\" needs a pattern, such as '^val_bpb:\\s*([0-9.]+)'.")
        try:
            groups = re.compile(pattern).groups
        except re.error as error:
            raise UsageError(f"{path}, [target], pattern: {error}.") from None
        if groups != 1:
            raise UsageError(f"{path}, [target], pattern: needs exactly one (group), which holds the number.")
    for name in editable:
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise UsageError(f"{path}, [target], editable: {name!r} leads out of the target.")
    if len(editable) != 1:
        raise UsageError(f"{path}, [target], editable: exactly one file can be edited in this version.")
    bound = _Taker(f"{path}, [limits]", limits)
    return Target(
        folder=folder,
        name=take.string("name", folder.resolve().name),
        editable=editable,
        train=take.strings("train"),
        score=score,  # type: ignore[arg-type]  # one_of has checked it
        metric=take.string("metric", "val_bpb"),
        goal=take.one_of("goal", ("minimize", "maximize"), "minimize"),  # type: ignore[arg-type]
        budget=_budget(f"{path}, [budget]", table.get("budget", {})),
        pattern=pattern,
        memory_gb=bound.positive("memory_gb", 8.0),
        vram_gb=bound.positive("vram_gb", 0.0) or None,
        disk_gb=bound.positive("disk_gb", 4.0),
        processes=int(bound.positive("processes", 512)),
        data=dict(table.get("data", {})),
        mounts=take.strings("mounts", ()),
        has_block=bool(table.get("hyperparameters")),
        trusted=named[1] if named else "",
    )


def _budget(where: str, table: Mapping[str, Any]) -> Budget:
    named = [kind for kind in get_args(BudgetKind) if kind in table]
    if len(named) != 1:
        raise UsageError(
            f"{where}: give exactly one of seconds, steps and tokens (found: {', '.join(named) or 'none'})."
        )
    take = _Taker(where, table)
    kind, amount = named[0], take.positive(named[0])
    if kind == "seconds" and "wall_seconds" in table:
        raise UsageError(f"{where}: wall_seconds bounds a budget of steps or tokens; seconds are enforced as they are.")
    wall = amount if kind == "seconds" else take.positive("wall_seconds", 3600.0)
    return Budget(kind, amount, wall, take.positive("startup_seconds", 120.0), take.positive("score_seconds", 300.0))


def parse_budget(text: str, before: Budget) -> Budget:
    """``300s``, ``5m``, ``200steps``, ``1000000tokens``, with the bounds of ``before`` for the other phases."""
    match = re.fullmatch(r"\s*([0-9.]+(?:e[0-9]+)?)\s*(s|seconds|m|min|h|steps|tokens)\s*", text)
    try:
        amount = float(match[1]) if match else 0.0
    except ValueError:
        amount = 0.0
    if match is None or not 0 < amount < math.inf:
        raise UsageError(
            f"--budget {text}: write a positive amount and its unit, such as 300s, 5m, 200steps, 1e6tokens."
        )
    unit = match[2]
    if unit in ("steps", "tokens"):
        if int(amount) < 1:
            raise UsageError(f"--budget {text}: less than one {unit[:-1]} trains nothing.")
        wall = before.wall_seconds if before.kind != "seconds" else max(3600.0, before.wall_seconds)
        kind: BudgetKind = "steps" if unit == "steps" else "tokens"
        return dataclasses.replace(before, kind=kind, amount=float(int(amount)), wall_seconds=wall)
    seconds = amount * {"m": 60, "min": 60, "h": 3600}.get(unit, 1)
    return dataclasses.replace(before, kind="seconds", amount=seconds, wall_seconds=seconds)
