"""target.toml: the program to train, its score, its training budget and its resource limits."""

from __future__ import annotations

import dataclasses
import math
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta

from agent.errors import UsageError, check_choice, check_key
from agent.toml import read_toml
from agent.trust import check_trusted
from agent.types import Goal

BudgetKind = Literal["seconds", "steps", "tokens"]
Positive = Annotated[float, Meta(gt=0, le=sys.float_info.max)]
Count = Annotated[int, Meta(gt=0)]
Words = tuple[Annotated[str, Meta(min_length=1)], ...]

_MUST_BE: Mapping[Any, str] = {
    str: "a string", Words: "a list of strings", Count: "a whole number above 0", Positive: "a finite number above 0",
    Positive | None: "a finite number above 0",
}  # fmt: skip
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
    wall_seconds: Positive  # bound on the training phase for every kind of budget
    startup_seconds: Positive = 120.0
    score_seconds: Positive = 300.0

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
    editable: Words
    train: Words
    score: Literal["trusted", "stdout"]
    budget: Budget
    metric: str = "val_bpb"
    goal: Goal = "minimize"
    pattern: str = ""
    memory_gb: Positive = 8.0
    vram_gb: Positive | None = None
    disk_gb: Positive = 4.0
    processes: Count = 512
    data: Mapping[str, Any] = field(default_factory=dict)
    mounts: Words = ()  # host directories that a foreign target reads, mounted read-only
    has_block: bool = False  # whether there are [[hyperparameters]]
    smoke: Words = ()  # command of the smoke test of a target that prints its own value; (): none
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
    target = _target(folder, tables)
    check_trusted(folder, tables)
    return target, dict(tables.get("run", {}))


def read_tables(folder: Path) -> dict[str, Any]:
    """The tables of ``folder/target.toml``. Raises ``UsageError`` if the file or a name in it is wrong."""
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


def _target(folder: Path, tables: Mapping[str, Any]) -> Target:
    path = folder / "target.toml"
    where, main = f"{path}, [target]", dict(tables.get("target", {}))
    named = re.fullmatch(r"trusted:([\w.-]+)", str(main.get("score")))
    main["score"] = "trusted" if named else main.get("score", "stdout" if "pattern" in main else "trusted")
    hints = get_type_hints(Target, include_extras=True)
    values = {"name": folder.resolve().name, **_typed(where, main, hints)}
    values |= _typed(f"{path}, [limits]", tables.get("limits", {}), hints)
    for key in ("editable", "train"):
        if not values.get(key):
            raise UsageError(f"{where}: {key} is {'empty' if key in values else 'missing'}.")
    if values.get("python"):  # absolute, with its links: an environment is found by the link that was started
        values["python"] = os.path.abspath(folder / Path(values["python"]).expanduser())  # noqa: PTH100
    target = Target(
        folder=folder, budget=_budget(f"{path}, [budget]", tables.get("budget", {})), data=dict(tables.get("data", {})),
        has_block=bool(tables.get("hyperparameters")), trusted=named[1] if named else "", **values,
    )  # fmt: skip
    _check(target, where)
    return target


def _typed(where: str, table: Mapping[str, Any], hints: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a table. Raises ``UsageError`` for a value that its hint does not allow."""
    found = {}
    for key, value in table.items():
        choices = get_args(hints[key]) if get_origin(hints[key]) is Literal else ()
        if choices and isinstance(value, str):
            check_choice(value, choices, f"{where}: {key}")
        try:
            found[key] = msgspec.convert(value, hints[key])
        except msgspec.ValidationError:
            wanted = f"one of {', '.join(choices)}" if choices else _MUST_BE[hints[key]]
            raise UsageError(f"{where}: {key} must be {wanted}, not {value!r}.") from None
    return found


def _check(target: Target, where: str) -> None:
    for name in target.editable:
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise UsageError(f"{where}, editable: {name!r} is outside the target.")
    if len(target.editable) != 1:
        raise UsageError(f"{where}, editable: name exactly one file.")
    if not target.metric.strip() or not target.metric.isprintable():
        raise UsageError(f"{where}: metric = {target.metric!r} must be one line of text, such as 'val_bpb'.")
    if target.score == "stdout":
        _check_pattern(target.pattern, where)
    elif target.smoke:
        raise UsageError(
            f'{where}: smoke needs score = "stdout". A trusted target makes the smoke test in its harness.'
        )
    elif target.seed_env or target.seed_arg:
        raise UsageError(f'{where}: seed_env and seed_arg belong to score = "stdout". Remove them.')
    if target.seed_env and not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", target.seed_env):
        raise UsageError(f"{where}, seed_env: {target.seed_env!r} is no name of an environment variable.")


def _check_pattern(pattern: str, where: str) -> None:
    if not pattern:
        raise UsageError(f"{where}: score = \"stdout\" needs a pattern, such as '^val_bpb:\\s*(\\S+)'.")
    try:
        groups = re.compile(pattern).groups
    except re.error as error:
        raise UsageError(f"{where}, pattern: {error}.") from None
    if groups != 1:
        raise UsageError(f"{where}, pattern: needs exactly one (group), which holds the number.")


def _budget(where: str, table: Mapping[str, Any]) -> Budget:
    kinds = [kind for kind in get_args(BudgetKind) if kind in table]
    if len(kinds) != 1:
        raise UsageError(
            f"{where}: set exactly one of seconds, steps and tokens (found: {', '.join(kinds) or 'none'})."
        )
    hints = get_type_hints(Budget, include_extras=True)
    bounds = _typed(where, table, {**dict.fromkeys(get_args(BudgetKind), Positive), **hints})
    kind, amount = kinds[0], bounds.pop(kinds[0])
    if kind == "seconds" and "wall_seconds" in bounds:
        raise UsageError(f"{where}: wall_seconds bounds a budget of steps or tokens. Remove it beside seconds.")
    return Budget(kind, amount, **{"wall_seconds": amount if kind == "seconds" else 3600.0, **bounds})


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
