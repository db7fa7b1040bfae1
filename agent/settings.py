"""Settings of a session: defaults, checks, and how flags, files and target.toml combine."""

from __future__ import annotations

import dataclasses
import math
import types
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

from agent.errors import UsageError
from agent.judge.policy import NAMES as POLICIES
from agent.judge.policy import Policy, needs_noise
from agent.proposers import METHODS
from agent.toml import _known, _nearest, read_toml

MOST_THREADS = 4096  # of a trial: with more, libraries crash

LOOKED_AT_BY = {  # settings that one proposer alone looks at
    "on_plateau": "code",
    "repairs": "code",
    "llm_temperature": "code",
    "centaur_share": "centaur",
    "screen": "centaur",
}


def check_settings(settings: Settings) -> None:
    """Raises ``UsageError``: names the flag, and what to write."""
    check_ends(settings)
    if settings.llm_timeout <= 0:
        raise UsageError(f"--llm-timeout {settings.llm_timeout:g}: must be more than 0 (seconds for one answer).")
    check_threads(settings.threads)
    if settings.centaur_share != "auto" and not _is_share(settings.centaur_share):
        raise UsageError(f"--centaur-share {settings.centaur_share}: write auto, or a number from 0 to 1.")
    if settings.on_llm_failure == "cma" and settings.proposer != "centaur":
        raise UsageError("--on-llm-failure cma belongs to --proposer centaur: no other has cma-es beside a model.")


def check_threads(threads: int) -> None:
    if threads > MOST_THREADS:
        raise UsageError(f"--threads {threads}: must be at most {MOST_THREADS}; 0 takes all cores.")


def _is_share(text: str) -> bool:
    try:
        return 0 <= float(text) <= 1
    except ValueError:
        return False


def check_calibration(calibration: int, policy: Policy) -> None:
    """Raises ``UsageError`` where the policy would know nothing of the noise."""
    if calibration < 2 and needs_noise(policy):
        raise UsageError(
            f"--calibrate {calibration}: the policy {policy.name} needs at least 2 runs of the baseline to know "
            f"the noise. Use --calibrate 3 or more, or --policy greedy."
        )


def without_effect(settings: Settings) -> list[str]:
    """What was set and this proposer does not look at, in a sentence each."""
    found = []
    for item in dataclasses.fields(Settings):
        value, user = getattr(settings, item.name), LOOKED_AT_BY.get(item.name, settings.proposer)
        if value != item.default and user != settings.proposer:
            flag = item.name.replace("_", "-")
            said = f"--no-{flag}" if value is False else f"--{flag} {value}"
            found.append(f"{said} has no effect: only --proposer {user} looks at it, and this is {settings.proposer}.")
    return found


PROPOSERS = ("code", *METHODS)

NEED_MODEL = frozenset({"code", *(name for name, (_, _, talks) in METHODS.items() if talks)})


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


def check_ends(settings: Settings) -> None:
    for name in ("trials", "hours", "train_hours"):
        value = getattr(settings, name)
        if value is not None and value <= 0:
            raise UsageError(f"--{name.replace('_', '-')} {value:g}: must be more than 0.")
    if settings.until:
        parse_until(settings.until, datetime.now())


def parse_until(text: str, now: datetime) -> datetime:
    """The next time that a clock shows ``HH:MM``."""
    try:
        at = datetime.strptime(text, "%H:%M")
    except ValueError:
        raise UsageError(f"--until {text}: write a time of day such as 07:30.") from None
    end = now.replace(hour=at.hour, minute=at.minute, second=0, microsecond=0)
    return end if end > now else end + timedelta(days=1)
