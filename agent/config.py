"""Settings of a session and the target's contract: flag, then ``--config FILE``, then target.toml, then default.

Every setting stands once, in ``Settings``; its flag, its key in a configuration file, its help text and its page in the
reference are made from there. An unknown key anywhere is an error that names the nearest valid one.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
import tomllib
import types
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from agent.errors import UsageError
from agent.judge import NAMES as POLICIES
from agent.proposers import METHODS
from agent.types import Goal

PROPOSERS = ("code", *METHODS)
NEED_MODEL = frozenset({"code", *(name for name, (_, _, talks) in METHODS.items() if talks)})

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
    score = take.one_of("score", ("trusted", "stdout"), "stdout" if "pattern" in head else "trusted")
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


def setting(default: Any, text: str, choices: tuple[str, ...] = ()) -> Any:
    return field(default=default, metadata={"help": text, "choices": choices})


@dataclass(frozen=True)
class Settings:
    """Everything a user can set for a session. A field ``on_llm_failure`` is the flag ``--on-llm-failure``."""

    tag: str = setting("", "name of the run; default: the date and a number")
    target: str = setting(".", "folder with a target.toml, in a git repository")
    proposer: str = setting("code", "who proposes the edits", PROPOSERS)
    sandbox: str = setting("auto", "where trials run", ("auto", "docker", "bwrap", "process"))
    image: str = setting("overnight-train:latest", "Docker image in which trials run")
    device: str = setting("auto", "what trials train on: auto, cpu, cuda, or the UUID of a GPU")
    threads: int = setting(0, "CPU threads of a trial; 0: all cores")
    workers: int = setting(1, "trials beside each other, each on a device of its own")
    ray_address: str = setting(
        "", "run trials on a Ray cluster: local (one on this machine), auto, or host:port; default: without Ray"
    )
    seed: int = setting(0, "seed of the session: search, model and trial seeds follow from it")
    runs: str = setting("runs", "folder of the run directories")
    cache: str = setting("~/.cache/overnight", "folder of prepared data")
    trials: int | None = setting(None, "end after so many trials")
    hours: float | None = setting(None, "end after so many hours")
    until: str = setting("", "end at this time of day, such as 07:30")
    train_hours: float | None = setting(None, "end after so many hours of training, other time not counted")
    breaker: int = setting(10, "stop after so many trials in a row that fail for the same reason; 0: never")
    budget: str = setting("", "training of one run: 300s, 5m, 200steps, 1e6tokens; default: target.toml")
    llm_base_url: str = setting("http://127.0.0.1:8000/v1", "OpenAI-compatible model server")
    llm_model: str = setting("", "model name; default: the only one the server has")
    llm_timeout: float = setting(600.0, "seconds that one answer may take")
    llm_temperature: float = setting(0.7, "temperature of the first answer; repeats are asked again with a higher one")
    on_llm_failure: str = setting(
        "wait",
        "when the model server fails: wait for it, let cma-es go on (centaur only), or stop",
        ("wait", "cma", "stop"),
    )
    llm_sleep: str = setting(
        "auto",
        "vLLM's sleep mode while a trial trains: auto uses it if the server may be on the GPU that trains",
        ("auto", "on", "off"),
    )
    repairs: int = setting(1, "how often a reply that cannot be used may be repaired")
    centaur_share: str = setting("auto", "share of the model's proposals in centaur: auto, or a number from 0 to 1")
    screen: bool = setting(True, "screen the points of cma-es in centaur with a Gaussian process")
    ask_ahead: str = setting(
        "auto",
        "ask for the next idea while a trial trains; auto: where the model server is on another host",
        ("auto", "on", "off"),
    )
    on_plateau: int = setting(0, "trials that cma-es gets after 8 of a model without a keep; 0: none")
    policy: str = setting("confirm", "how edits are accepted", POLICIES)
    calibrate: int | None = setting(None, "runs of the unchanged baseline at the start; default: by policy and budget")
    keep_simpler: bool = setting(False, "keep ties within the noise whose code is simpler")
    notify: str = setting("", "tell of end, trouble and new bests: env (OVERNIGHT_NOTIFY), or a file of addresses")
    notify_minutes: float = setting(10.0, "minutes of waiting for the model server that are told as trouble")
    detach: bool = setting(False, "go on in the background, also after logout")


def make_settings(
    flags: Mapping[str, Any], config: Path | None, target_run: Mapping[str, Any] | None = None
) -> Settings:
    """Merge the sources of settings in their order of precedence.

    Raises:
        UsageError: an unknown key, a wrong type, or a value that is not among the choices; says where it stood.
    """
    merged: dict[str, Any] = {}
    if target_run:
        merged.update(_checked(target_run, "target.toml, [run]"))
    if config is not None:
        if not config.is_file():
            raise UsageError(f"--config {config}: no such file.")
        merged.update(_checked(read_toml(config), str(config)))
    merged.update(_checked(flags, "command line"))
    return Settings(**merged)


def _checked(values: Mapping[str, Any], where: str) -> dict[str, Any]:
    hints = get_type_hints(Settings)
    fields = {f.name: f for f in dataclasses.fields(Settings)}
    checked: dict[str, Any] = {}
    for key, value in values.items():
        _known(key, fields, where, "key")
        checked[key] = _typed(value, hints[key], f"{where}: {key}")
        choices = fields[key].metadata["choices"]
        if choices and checked[key] not in choices:
            raise UsageError(
                f"{where}: {key} = {value!r} is not one of {', '.join(choices)}.{_nearest(str(value), choices)}"
            )
    return checked


def _typed(value: Any, hint: Any, where: str) -> Any:
    if get_origin(hint) in (Union, types.UnionType):
        hint = next(a for a in get_args(hint) if a is not type(None))
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint is str and isinstance(value, (int, float)) and not isinstance(value, bool):
        return f"{value:g}"
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise UsageError(f"{where} must be {_ARTICLE[hint]}, not {value!r}.")
    if isinstance(value, float) and not math.isfinite(value):
        raise UsageError(f"{where} = {value} is no finite number.")
    if isinstance(value, (int, float)) and not isinstance(value, bool) and value < 0:
        raise UsageError(f"{where} = {value} is negative.")
    return value


_ARTICLE = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}


def read_toml(path: Path) -> dict[str, Any]:
    """Parse a TOML file. Raises ``UsageError`` with the file and the line."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: {error}.") from None


def _known(key: str, valid: Iterable[str], where: str, what: str) -> None:
    names = list(valid)
    if key not in names:
        raise UsageError(f"{where}: unknown {what} {key!r}.{_nearest(key, names)}")


def _nearest(key: str, names: Iterable[str]) -> str:
    options = list(names)
    close = difflib.get_close_matches(key, options, n=1, cutoff=0.5)
    return f" Did you mean {close[0]!r}?" if close else f" Valid: {', '.join(sorted(options))}."


class _Taker:
    """Reads typed values out of one table, and says where a wrong one stands."""

    def __init__(self, where: str, table: Mapping[str, Any]):
        self.where, self.table = where, table

    def string(self, key: str, default: str | None = None) -> str:
        value = self.table.get(key, default)
        if not isinstance(value, str) or (default is None and not value):
            raise UsageError(f"{self.where}: {key} must be a text.")
        return value

    def strings(self, key: str, default: tuple[str, ...] | None = None) -> tuple[str, ...]:
        value = self.table.get(key, default)
        if not isinstance(value, (list, tuple)) or not all(isinstance(v, str) and v for v in value):
            raise UsageError(f"{self.where}: {key} must be a list of texts.")
        if default is None and not value:
            raise UsageError(f"{self.where}: {key} is empty.")
        return tuple(value)

    def one_of(self, key: str, choices: tuple[str, ...], default: str) -> str:
        value = self.string(key, default)
        if value not in choices:
            raise UsageError(
                f"{self.where}: {key} = {value!r} is not one of {', '.join(choices)}.{_nearest(value, choices)}"
            )
        return value

    def positive(self, key: str, default: float | None = None) -> float:
        value = self.table.get(key, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise UsageError(f"{self.where}: {key} must be a number.")
        if not math.isfinite(value):
            raise UsageError(f"{self.where}: {key} = {value} is no finite number.")
        if value <= 0 and key in self.table:
            raise UsageError(f"{self.where}: {key} = {value} must be more than 0.")
        return float(value)
