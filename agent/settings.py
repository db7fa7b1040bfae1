"""Settings of a session: defaults, checks, and precedence of flags, files and target.toml."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from shlex import quote
from typing import Any, get_args, get_type_hints

from agent.errors import UsageError, check_choice, check_key
from agent.judge.policy import NAMES as POLICIES
from agent.proposers import METHODS
from agent.toml import read_toml
from agent.trust import PROTECTED, is_own_run
from agent.types import is_number

MOST_THREADS = 4096  # of a trial: libraries crash with more
PROPOSERS = ("code", "ideas", *METHODS)
EDIT_CODE = frozenset({"code", "ideas"})  # not only values of the hyperparameter block
NEED_MODEL = frozenset({"code", *(name for name, (_, _, asks_model) in METHODS.items() if asks_model)})
USED_BY: Mapping[str, frozenset[str]] = {  # setting: the only proposers that use it
    "on_plateau": EDIT_CODE,
    "ideas": frozenset({"code"}),
    "on_llm_loop": frozenset({"code"}),
    "repairs": frozenset({"code"}),
    "llm_temperature": frozenset({"code"}),
    "centaur_share": frozenset({"centaur"}),
    "screen": frozenset({"centaur"}),
}
RUN, END, MODEL, ACCEPT, SEARCH, SCALE, NOTIFY = (  # groups of options in --help
    "what to run", "when to end", "model", "acceptance", "search", "scale", "notification and trackers",
)  # fmt: skip


def setting(default: Any, text: str, group: str, choices: tuple[str, ...] = (), several: str = "") -> Any:
    """A field of ``Settings`` with its help text, its group in --help and its valid values.

    ``several`` is the form of one value of an option that may be repeated; commas separate them in the setting.
    """
    return field(default=default, metadata={"help": text, "group": group, "choices": choices, "several": several})


@dataclass(frozen=True)
class Settings:
    """Every setting of a session. The field ``on_llm_failure`` is the option ``--on-llm-failure``."""

    tag: str = setting("", "name of the session; default: date and number", RUN)
    target: str = setting(".", "folder with a target.toml, in a git repository", RUN)
    proposer: str = setting("code", "method that proposes edits", RUN, PROPOSERS)
    budget: str = setting("", "training per run: 300s, 5m, 200steps, 1e6tokens; default: target.toml", RUN)
    sandbox: str = setting("auto", "isolation of trials", RUN, ("auto", "docker", "bwrap", "process"))
    image: str = setting("overnight-train:latest", "Docker image of trials", RUN)
    python: str = setting("", "Python interpreter of trials; default: target.toml, else Overnight's own", RUN)
    device: str = setting("auto", "training device: auto, cpu, cuda, rocm, mps, or the UUID of a GPU", RUN)
    threads: int = setting(0, "CPU threads per trial; 0: all cores", RUN)
    smoke: str = setting(
        "auto", "smoke test of each new program before its first run: auto, off, or its bound in seconds", RUN
    )
    seed: int = setting(0, "seed of search, model and trials", RUN)
    runs: str = setting("runs", "folder of the run directories", RUN)
    cache: str = setting("~/.cache/overnight", "folder of prepared data", RUN)
    detach: bool = setting(False, "run in the background; continues after logout", RUN)
    trials: int | None = setting(None, "end after this number of trials; 0: one run of the baseline", END)
    hours: float | None = setting(None, "end after this number of hours", END)
    until: str = setting("", "end at this time of day, such as 07:30", END)
    train_hours: float | None = setting(None, "end after this number of hours spent training", END)
    gpu_hours: float | None = setting(None, "end after this number of hours of runs on GPUs, scoring included", END)
    max_tokens_total: int | None = setting(None, "end after this number of the model's tokens, read and written", END)
    max_cost: float | None = setting(None, "end when the model's tokens have cost this much; needs the prices", END)
    price_in: float = setting(0.0, "price of a million tokens that the model reads", END)
    price_out: float = setting(0.0, "price of a million tokens that the model writes", END)
    breaker: int = setting(10, "stop after this number of consecutive trials with the same failure; 0: never", END)
    llm_base_url: str = setting("http://127.0.0.1:8000/v1", "OpenAI-compatible model server", MODEL)
    llm_model: str = setting("", "model name; default: the only model of the server", MODEL)
    llm_timeout: float = setting(
        600.0, "seconds until the first token of a reply; until its end, if the server does not stream", MODEL
    )
    llm_token_timeout: float = setting(120.0, "seconds between two tokens of a reply; at most llm_timeout", MODEL)
    llm_temperature: float = setting(0.7, "sampling temperature; retries of repeated ideas use a higher one", MODEL)
    on_llm_failure: str = setting(
        "wait", "if the model server fails: wait for it, continue with cma-es (centaur only), or stop",
        MODEL, ("wait", "cma", "stop"),
    )  # fmt: skip
    on_llm_loop: str = setting(
        "skip", "if the model repeats itself or its last replies: end the trial, or try an idea of the bank or a point "
        "of cma-es in its place", MODEL, ("skip", "ideas", "cma"),
    )  # fmt: skip
    llm_sleep: str = setting(
        "auto", "vLLM's sleep mode while a trial trains; auto: if the server may share the training GPU",
        MODEL, ("auto", "on", "off"),
    )  # fmt: skip
    on_sleep_failure: str = setting(
        "split", "if the model server answers otherwise after waking or keeps memory, and a restart does not help: "
        "split the GPU's memory with it, or wait", MODEL, ("split", "wait"),
    )  # fmt: skip
    ask_ahead: str = setting(
        "auto", "ask for the next idea while a trial trains; auto: if the model server is on another host",
        MODEL, ("auto", "on", "off"),
    )  # fmt: skip
    notes: str = setting(
        "", "file with notes for the model, copied into the run directory; default: notes.md of the target", MODEL
    )
    memory: str = setting(
        "auto", "earlier sessions of the same target whose trials the proposer knows: auto, off, or tags with commas "
        "(points of named sessions also start a search method)", RUN,
    )  # fmt: skip
    ideas: bool = setting(True, "show a model ideas of the idea bank", MODEL)
    repairs: int = setting(
        2, "requests to repair a reply that cannot be applied, or an edit that fails before training", MODEL
    )
    policy: str = setting("confirm", "rule that accepts edits", ACCEPT, POLICIES)
    calibrate: int | None = setting(
        None, "baseline runs at the start; default: confirm 3, greedy 1, others 4 (5 from 40 trials on)", ACCEPT
    )
    keep_simpler: bool = setting(False, "keep ties within the noise if the code is simpler", ACCEPT)
    stop_hopeless: bool = setting(True, "stop runs whose loss curve says that the edit is certain to lose", ACCEPT)
    centaur_share: str = setting(
        "auto", "share of trials that run a point of the model: auto (the most promising point runs), or 0 to 1", SEARCH
    )
    screen: bool = setting(True, "screen centaur's cma-es points with a Gaussian process", SEARCH)
    on_plateau: int = setting(0, "cma-es trials after 8 code edits without a keep; 0: none", SEARCH)
    workers: int = setting(1, "trials in parallel, each on its own device", SCALE)
    ray_address: str = setting(
        "", "Ray cluster that runs the trials: local (on this machine), auto, or host:port; default: no Ray", SCALE
    )
    notify: str = setting("", "notify of end, problems and new bests: env (OVERNIGHT_NOTIFY), or a file", NOTIFY)
    notify_minutes: float = setting(10.0, "minutes without the model server before a notification", NOTIFY)
    track: str = setting(
        "", "tracker that receives each trial: tensorboard, mlflow, wandb or trackio, with a folder or the URI of an "
        "MLflow server (default: a folder beside the runs); several: repeat it, or use commas",
        NOTIFY, several="TOOL[:URI]",
    )  # fmt: skip


def make_settings(
    flags: Mapping[str, Any], config: Path | None, target_run: Mapping[str, Any] | None = None
) -> Settings:
    """Merge the sources by precedence: flags, then the file ``config``, then ``[run]`` of target.toml, then defaults.

    Raises:
        UsageError: an unknown key, a wrong type or a wrong value; names the source, the key and the nearest valid one.
    """
    if config is not None and not config.is_file():
        raise UsageError(f"--config {config}: no such file.")
    file = read_toml(config) if config else {}
    hints, fields = get_type_hints(Settings), {f.name: f for f in dataclasses.fields(Settings)}
    merged: dict[str, Any] = {}
    for where, values in (("target.toml, [run]", target_run or {}), (str(config), file), ("command line", flags)):
        for key, value in values.items():
            check_key(key, fields, where)
            merged[key] = _typed(value, plain_type(hints[key]), f"{where}: {key}", key in ABOVE_ZERO)
            if choices := fields[key].metadata["choices"]:
                check_choice(merged[key], choices, f"{where}: {key}")
    return Settings(**merged)


def check_own_run(directory: Path, saved: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Refuse the protected settings of a session that another user started: its run directory may be a clone.

    Args:
        directory: the run directory.
        saved: its settings.
        given: settings that the user names now; they are not refused.

    Raises:
        UsageError: names the settings and the command that approves them.
    """
    if is_own_run(directory, saved):
        return
    if found := [f"{key} = {saved[key]!r}" for key in sorted(foreign_settings(saved) - given.keys())]:
        raise UsageError(
            f"{directory} sets {', '.join(found)}, but this user did not start the session at this place. Read its "
            f"run.toml, then `overnight trust {quote(str(directory))}`; or name these settings as options."
        )


def foreign_settings(saved: Mapping[str, Any]) -> set[str]:
    """The settings of a session that need an approval if it was not started here."""
    usual = dataclasses.asdict(Settings())
    usual["cache"] = str(Path(usual["cache"]).expanduser().resolve())
    found = {key for key in PROTECTED - {"tag", "target", "runs", "detach"} if saved.get(key, usual[key]) != usual[key]}
    if saved.get("proposer") not in EDIT_CODE and "sandbox" in saved:  # auto may become process
        found.add("sandbox")
    if saved.get("sandbox") in ("docker", "bwrap"):  # stronger than auto, which may become process
        found.discard("sandbox")
    return found


def plain_type(hint: Any) -> Any:
    """``int`` for ``int`` and for ``int | None``."""
    return next(kind for kind in get_args(hint) or (hint,) if kind is not type(None))


ABOVE_ZERO = {
    "hours", "train_hours", "gpu_hours", "llm_timeout", "llm_token_timeout", "max_tokens_total", "max_cost",
}  # fmt: skip
_NOUN = {int: "an integer", float: "a number", str: "a string", bool: "true or false"}


def _typed(value: Any, kind: type, where: str, above_zero: bool) -> Any:
    if kind is float and is_number(value):
        value = float(value)
    if kind is str and is_number(value):
        return f"{value:g}"  # --budget and --centaur-share may be numbers in a file
    if not isinstance(value, kind) or (kind is not bool and isinstance(value, bool)):
        raise UsageError(f"{where} must be {_NOUN[kind]}, not {value!r}.")
    if isinstance(value, (int, float)) and (not 0 <= value < math.inf or (above_zero and not value)):
        raise UsageError(
            f"{where} = {value:g} must be a finite number, {'more than 0' if above_zero else '0 or more'}."
        )
    return value


def check_settings(settings: Settings) -> None:
    """Raises ``UsageError`` for values that no session accepts; names the option."""
    if settings.until:
        parse_until(settings.until, datetime.now())
    if settings.max_cost is not None and not (settings.price_in or settings.price_out):
        raise UsageError(f"--max-cost {settings.max_cost:g}: add --price-in and --price-out, per million tokens.")
    check_threads(settings.threads)
    smoke_seconds(settings.smoke, 1.0)
    model_share(settings.centaur_share)
    if settings.on_llm_failure == "cma" and settings.proposer != "centaur":
        raise UsageError("--on-llm-failure cma needs --proposer centaur; use wait or stop.")


def check_threads(threads: int) -> None:
    if threads > MOST_THREADS:
        raise UsageError(f"--threads {threads}: must be at most {MOST_THREADS}; 0 uses all cores.")


def model_share(text: str) -> float | None:
    """The share of trials that ``--centaur-share`` names; None for ``auto``."""
    if text == "auto":
        return None
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise UsageError(f"--centaur-share {text}: write auto, or a number from 0 to 1.")
    return share


def smoke_seconds(text: str, auto: float) -> float:
    """The bound of a smoke test that ``--smoke`` names, in seconds; 0 for ``off``."""
    try:
        seconds = {"auto": auto, "off": 0.0}[text] if text in ("auto", "off") else float(text)
    except ValueError:
        seconds = -1.0
    if not 0 < seconds < math.inf and text != "off":
        raise UsageError(f"--smoke {text}: write auto, off, or a positive number of seconds.")
    return seconds


def parse_until(text: str, now: datetime) -> datetime:
    """The next moment at which a clock shows ``HH:MM``."""
    try:
        at = datetime.strptime(text, "%H:%M")
    except ValueError:
        raise UsageError(f"--until {text}: write a time of day such as 07:30.") from None
    end = now.replace(hour=at.hour, minute=at.minute, second=0, microsecond=0)
    return end if end > now else end + timedelta(days=1)


def without_effect(settings: Settings) -> list[str]:
    """A sentence for each setting that the user changed and this proposer ignores."""
    found = []
    for name, users in USED_BY.items():
        value, flag = getattr(settings, name), name.replace("_", "-")
        if settings.proposer not in users and value != getattr(Settings, name):
            shown = f"--no-{flag}" if value is False else f"--{flag} {value}"
            owners = " or ".join(sorted(users))
            found.append(f"{shown} has no effect: only --proposer {owners} uses it, and this is {settings.proposer}.")
    return found
